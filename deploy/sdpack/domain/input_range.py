"""The range of shapes an engine accepts."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ConfigDict, PositiveInt, with_config


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class InputRange:
    """The range of shapes an engine accepts for one input, as stored in a manifest.

    Attributes:
        best: the shape the engine is tuned for.
    """

    smallest: tuple[PositiveInt, ...]
    best: tuple[PositiveInt, ...]
    largest: tuple[PositiveInt, ...]

    @classmethod
    def fixed(cls, sizes: tuple[int, ...]) -> InputRange:
        """Return the range that contains one shape only."""
        return cls(sizes, sizes, sizes)
