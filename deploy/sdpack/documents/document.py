"""YAML files as typed models; every error names file, line, key and value."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from sdpack.errors import InputError

Model = TypeVar("Model", bound="Document")
Location = tuple[str | int, ...]


def formerly(name: str, former: str, default: Any = ...) -> Any:
    """Return a field that also accepts its name in documents of an older schema.

    Args:
        name: the field's name.
        former: its name in the older schema.
        default: its default; without one, the field is required.
    """
    return Field(default, validation_alias=AliasChoices(name, former))


def _name(text: str) -> str:
    allowed = text.replace("-", "").replace("_", "").replace(".", "")
    if not (allowed.isascii() and allowed.isalnum()) or text.startswith((".", "-")):
        raise ValueError(f"{text!r} is not a valid name; use letters, digits, '-', '_' and '.'")
    return text


Name = Annotated[str, AfterValidator(_name)]
"""A name in a document: letters, digits, "-", "_" and "."."""


class Document(BaseModel):
    """Base class of documents: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_document(path: Path, model: type[Model], error: type[InputError]) -> Model:
    """Read a YAML file as a `model`.

    Raises:
        InputError: the file is missing, is not YAML, or is invalid; raised as an `error`.
    """
    return parse_document(_text(path, error), str(path), model, error)


def parse_document(text: str, name: str, model: type[Model], error: type[InputError]) -> Model:
    """Parse YAML text as a `model`; `name` replaces the file's name in errors.

    Raises:
        InputError: as in `read_document`.
    """
    try:
        values = yaml.safe_load(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as cause:
        raise error(f"{name}{_mark(cause)} is not YAML: {_first_line(cause)}") from cause
    if not isinstance(values, dict):
        raise error(f"{name} has no keys; see `sdpack profiles show 4gb-gpu` for an example")
    try:
        return model.model_validate(values)
    except ValidationError as cause:
        raise error("; ".join(_problems(cause, name, node))) from cause


def _text(path: Path, error: type[InputError]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else "not UTF-8 text"
        raise error(f"{path} cannot be read: {reason}; check the path") from cause


def _problems(cause: ValidationError, name: str, node: yaml.Node | None) -> Iterable[str]:
    for problem in cause.errors(include_url=False):
        where = problem["loc"]
        line = _line(node, where)
        key = ".".join(str(step) for step in where) or "(the file)"
        yield f"{name}, line {line}: {key}: {_description(problem)}"


def _description(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return "unknown key; check its spelling or remove it"
    if problem["type"] == "missing":
        return "missing; add it"
    message = str(problem["msg"]).removeprefix("Value error, ")
    value = problem["input"]
    return message if isinstance(value, dict | list) else f"{message} (it is {value!r})"


def _line(node: yaml.Node | None, where: Location) -> int:
    """Return the line, from 1, of the longest prefix of `where` that exists in the file."""
    line = 1
    for step in where:
        if isinstance(node, yaml.MappingNode):
            pair = next((p for p in node.value if p[0].value == str(step)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _mark(cause: Exception) -> str:
    mark = getattr(cause, "problem_mark", None)
    return "" if mark is None else f", line {mark.line + 1}"


def _first_line(cause: Exception) -> str:
    problem = getattr(cause, "problem", None) or str(cause) or type(cause).__name__
    return str(problem).splitlines()[0]
