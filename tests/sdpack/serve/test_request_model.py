from __future__ import annotations

from typing import Annotated, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import Field, ValidationError
from sdpack.serve.request_model import RequestModel, nullable, values_of


class Example(RequestModel):
    needed: str
    text: str = "usual"
    number: Annotated[int, Field(ge=1, description="How many.")] = 7
    either: Literal["a", "b"] = "a"
    open: int | None = None


def test_null_gives_every_optional_field_its_default() -> None:
    nulls = dict.fromkeys(("text", "number", "either", "open"))
    assert Example.model_validate({"needed": "x", **nulls}) == Example(needed="x")


def test_null_is_no_value_of_a_required_field() -> None:
    with pytest.raises(ValidationError, match="needed"):
        Example.model_validate({"needed": None})


def test_the_schema_takes_null_where_the_model_does() -> None:
    schema = Draft202012Validator(Example.model_json_schema())
    assert schema.is_valid({"needed": "x", "text": None, "number": None, "either": None})
    assert not schema.is_valid({"needed": None})
    assert not schema.is_valid({"needed": "x", "number": 0})
    number = Example.model_json_schema()["properties"]["number"]
    assert (number["default"], number["description"]) == (7, "How many.")
    assert values_of(number) == {"type": "integer", "minimum": 1}
    assert nullable(number) == number
