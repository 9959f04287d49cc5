"""The base of all requests: null means "not given"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import (
    BaseModel,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

NULL = {"type": "null"}
ANNOTATIONS = ("title", "description", "default", "deprecated", "examples")
"""Keywords of JSON Schema that describe a field and restrict no value."""


class RequestModel(BaseModel):
    """A request whose optional fields may all be null.

    Clients send null for fields their caller did not set: OpenAI's client types most optional
    fields as nullable, whatever their default. A null field gets its default; the published schema
    allows null too.
    """

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {
            name: value
            for name, value in given.items()
            if value is not None or name not in optional
        }

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core)
        described = handler.resolve_ref_schema(schema)
        required = described.get("required", ())
        fields = described.get("properties", {})
        described["properties"] = {
            name: field if name in required else nullable(field) for name, field in fields.items()
        }
        return schema


def or_say(reason: str) -> WrapValidator:
    """A validator that replaces the message of a rejected value by this reason."""

    def check(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError as cause:
            raise PydanticCustomError("unsupported", "{reason}", {"reason": reason}) from cause

    return WrapValidator(check)


def nullable(field: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a field, extended to accept null."""
    if NULL in field.get("anyOf", ()) or field.get("type") == "null":
        return field
    described = {name: field[name] for name in ANNOTATIONS if name in field}
    values = {name: value for name, value in field.items() if name not in ANNOTATIONS}
    return {"anyOf": [values, NULL], **described} if values else field


def values_of(field: dict[str, Any]) -> dict[str, Any]:
    """The part of a field's JSON schema that describes its values other than null."""
    found: dict[str, Any] = field["anyOf"][0] if "anyOf" in field else field
    return found
