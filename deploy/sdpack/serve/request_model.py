"""The base of all requests: null means that a field was not given."""

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

    Clients send null for what their caller left open: OpenAI's types most optional fields as
    nullable, whatever their default. A field that is null gets its default, here and in the
    schema that the server publishes.
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
    """A validator that gives its own reason for what a field's type refuses."""

    def check(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError as cause:
            raise PydanticCustomError("unsupported", "{reason}", {"reason": reason}) from cause

    return WrapValidator(check)


def nullable(field: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a field, which null satisfies too."""
    if NULL in field.get("anyOf", ()) or field.get("type") == "null":
        return field
    described = {name: field[name] for name in ANNOTATIONS if name in field}
    values = {name: value for name, value in field.items() if name not in ANNOTATIONS}
    return {"anyOf": [values, NULL], **described} if values else field


def values_of(field: dict[str, Any]) -> dict[str, Any]:
    """The part of a field's JSON schema that says which values it takes besides null."""
    found: dict[str, Any] = field["anyOf"][0] if "anyOf" in field else field
    return found
