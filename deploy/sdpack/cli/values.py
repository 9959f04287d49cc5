"""Types of the values of options and arguments; wrong values are rejected in one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sdpack.documents.sampling import MOST_STEPS


class Finite(click.FloatRange):
    """A number in a range; neither NaN, which passes every comparison, nor infinite."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class NonEmptyText(click.types.StringParamType):
    """Text that is not empty, as it would be from an unset shell variable."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).strip():
            self.fail("it is empty.", param, ctx)
        return str(super().convert(value, param, ctx))


class ParsedText(NonEmptyText):
    """Text that is not empty, as the value that a parser of the package makes of it.

    Args:
        parse: raises InputError for text it cannot parse.
    """

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self.parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):  # a default
            return value
        return self.parse(super().convert(value, param, ctx))


class FilePath(click.Path):
    """A path that is not empty, because "" would mean the current folder."""

    def __init__(self, **wanted: bool) -> None:
        super().__init__(path_type=Path, **wanted)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty.", param, ctx)
        return super().convert(value, param, ctx)


STEP_COUNT = click.IntRange(1, MOST_STEPS)
TEXT = NonEmptyText()
PATH = FilePath()
