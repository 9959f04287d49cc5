"""The shapes an engine takes."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ConfigDict, PositiveInt, with_config


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class InputRange:
    """The shapes an engine takes at one input; a manifest stores it as it is.

    Attributes:
        best: the shape the engine is tuned for.
    """

    smallest: tuple[PositiveInt, ...]
    best: tuple[PositiveInt, ...]
    largest: tuple[PositiveInt, ...]

    @classmethod
    def fixed(cls, sizes: tuple[int, ...]) -> InputRange:
        """The range of one shape."""
        return cls(sizes, sizes, sizes)
