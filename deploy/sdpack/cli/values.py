"""Types of option values and arguments; each error is one line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from sdpack.documents.catalog import MOST_STEPS


class Finite(click.FloatRange):
    """A finite number in a range; NaN would pass every comparison."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class NonEmptyText(click.types.StringParamType):
    """Non-empty text; an undefined shell variable would be empty."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).strip():
            self.fail("it is empty.", param, ctx)
        return str(super().convert(value, param, ctx))


class FilePath(click.Path):
    """A non-empty path; "" would mean the current folder."""

    def __init__(self, **wanted: bool) -> None:
        super().__init__(path_type=Path, **wanted)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty.", param, ctx)
        return super().convert(value, param, ctx)


STEPS = click.IntRange(1, MOST_STEPS)
TEXT = NonEmptyText()
PATH = FilePath()
