"""Plain values that a caller gives, refused in one line where they are not what they should be."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from enum import StrEnum
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from sdpack.documents.profile import Size
from sdpack.errors import InputError

PathLikeText = str | PathLike[str]
Choice = TypeVar("Choice", bound=StrEnum)
Refusal = type[InputError]


def as_path(value: PathLikeText, name: str) -> Path:
    """A path that is not empty, as "" would mean the current folder.

    Raises:
        InputError: it is empty, or no path.
    """
    return Path(as_text(value, name))


def as_text(value: PathLikeText, name: str) -> str:
    """A text that is not empty, or a path as one.

    Raises:
        InputError: it is empty, or neither.
    """
    try:
        text = os.fspath(value)
    except TypeError:
        text = ""
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{name} is {value!r}; give a text or a path that is not empty")
    return text


def as_list(value: object, name: str, single: tuple[type, ...] = ()) -> list[Any]:
    """A list of what is one, or a single value of these types as a list of it.

    Raises:
        InputError: it is neither.
    """
    if isinstance(value, single):
        return [value]
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InputError(f"{name} is {value!r}; give a list")
    return [*value]


def as_choice(kind: type[Choice], value: str, name: str) -> Choice:
    """The member of an enumeration by its value.

    Raises:
        InputError: there is none.
    """
    try:
        return kind(value)
    except ValueError as cause:
        known = ", ".join(member.value for member in kind)
        raise InputError(f"{name} is {value!r}; choose one of {known}") from cause


def as_count(
    value: int, name: str, least: int = 1, most: int | None = None, refusal: Refusal = InputError
) -> int:
    """A whole number in a range; anything that Python takes as an index is one, but a bool.

    Raises:
        InputError: as `refusal`; it is none, or out of the range.
    """
    within = f"{least} or more" if most is None else f"from {least} to {most}"
    wrong = refusal(f"{name} is {value!r}; give a whole number, {within}")
    if isinstance(value, bool):
        raise wrong
    try:
        number = operator.index(value)
    except TypeError:
        raise wrong from None
    if number < least or (most is not None and number > most):
        raise wrong
    return number


def as_scale(value: float, name: str, refusal: Refusal = InputError) -> float:
    """A finite number, 0 or more.

    Raises:
        InputError: as `refusal`; it is none.
    """
    wrong = refusal(f"{name} is {value!r}; give a finite number, 0 or more")
    try:
        number = math.nan if isinstance(value, str | bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise wrong from None
    if not math.isfinite(number) or number < 0:
        raise wrong
    return number


def as_size(value: tuple[int, int], name: str, refusal: Refusal = InputError) -> Size:
    """Height and width, as everything below the API has them, of width and height.

    Raises:
        InputError: as `refusal`; they are not two whole numbers, 1 or more.
    """
    if isinstance(value, str) or not isinstance(value, Iterable) or len(sides := [*value]) != 2:
        raise refusal(f"{name} is {value!r}; give width and height in pixels, such as (512, 512)")
    width, height = (as_count(side, f"{name}, {value!r},", refusal=refusal) for side in sides)
    return height, width
