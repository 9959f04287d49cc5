"""Kinds of values that options and arguments take, refused in one line where they are wrong."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from sdpack.documents.catalog import MOST_STEPS


class Finite(click.FloatRange):
    """A number in a range; neither NaN, which no comparison refuses, nor infinite."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class NonEmptyText(click.types.StringParamType):
    """Text that is not empty, as that of a variable the shell does not know would be."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).strip():
            self.fail("it is empty.", param, ctx)
        return str(super().convert(value, param, ctx))


class FilePath(click.Path):
    """A path that is not empty, as "" would mean the current folder."""

    def __init__(self, **wanted: bool) -> None:
        super().__init__(path_type=Path, **wanted)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty.", param, ctx)
        return super().convert(value, param, ctx)


STEPS = click.IntRange(1, MOST_STEPS)
TEXT = NonEmptyText()
PATH = FilePath()
