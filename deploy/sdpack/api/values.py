"""Validation of a caller's arguments; each error is one line."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Mapping
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
    """Return a non-empty path ("" would mean the current folder).

    Raises:
        InputError: the value is empty or not a path.
    """
    return Path(as_text(value, name))


def as_text(value: PathLikeText, name: str) -> str:
    """Return a non-empty text, or a path as text.

    Raises:
        InputError: the value is empty, or neither text nor path.
    """
    try:
        text = os.fspath(value)
    except TypeError:
        text = ""
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{name} is {value!r}; give a text or a path that is not empty")
    return text


def as_list(value: object, name: str, single: tuple[type, ...] = ()) -> list[Any]:
    """Return an iterable as a list, or a value of a `single` type as a list of one.

    Raises:
        InputError: the value is neither.
    """
    if isinstance(value, single):
        return [value]
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InputError(f"{name} is {value!r}; give a list")
    return [*value]


def as_choice(kind: type[Choice], value: str, name: str) -> Choice:
    """Return the member of an enumeration with this value.

    Raises:
        InputError: no member has it.
    """
    try:
        return kind(value)
    except ValueError as cause:
        choices = ", ".join(member.value for member in kind)
        raise InputError(f"{name} is {value!r}; choose one of {choices}") from cause


def as_count(
    value: int, name: str, least: int = 1, most: int | None = None, refusal: Refusal = InputError
) -> int:
    """Return a whole number in a range; accepts anything with `__index__` except a bool.

    Raises:
        InputError: the value is not a whole number, or out of range; raised as a `refusal`.
    """
    within = f"{least} or more" if most is None else f"from {least} to {most}"
    error = refusal(f"{name} is {value!r}; give a whole number, {within}")
    if isinstance(value, bool):
        raise error
    try:
        number = operator.index(value)
    except TypeError:
        raise error from None
    if number < least or (most is not None and number > most):
        raise error
    return number


def as_scale(value: float, name: str, refusal: Refusal = InputError) -> float:
    """Return a finite number, 0 or more.

    Raises:
        InputError: the value is not such a number; raised as a `refusal`.
    """
    error = refusal(f"{name} is {value!r}; give a finite number, 0 or more")
    try:
        number = math.nan if isinstance(value, str | bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise error from None
    if not math.isfinite(number) or number < 0:
        raise error
    return number


def as_positive(value: float, name: str) -> float:
    """Return a finite number above 0.

    Raises:
        InputError: the value is not such a number.
    """
    number = as_scale(value, name)
    if number == 0:
        raise InputError(f"{name} is {value!r}; give a number above 0")
    return number


def as_weights(value: Mapping[str, float], name: str) -> dict[str, float]:
    """Return numbers of at least 0 by their names.

    Raises:
        InputError: the value is not a mapping of texts to such numbers.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"{name} is {value!r}; give weights by category, as a dict")
    return {as_text(key, name): as_scale(value[key], f"{name}[{key!r}]") for key in value}


def as_size(value: tuple[int, int], name: str, refusal: Refusal = InputError) -> Size:
    """Turn (width, height), the order of the API, into (height, width), the order elsewhere.

    Raises:
        InputError: the value is not two whole numbers, 1 or more; raised as a `refusal`.
    """
    if isinstance(value, str) or not isinstance(value, Iterable) or len(sides := [*value]) != 2:
        raise refusal(f"{name} is {value!r}; give width and height in pixels, such as (512, 512)")
    width, height = (as_count(side, f"{name}, {value!r},", refusal=refusal) for side in sides)
    return height, width
