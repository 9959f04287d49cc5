from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError
from sdpack.serve import schemas as shapes
from sdpack.serve.request_model import RequestModel

REQUESTS = [
    model
    for model in vars(shapes).values()
    if isinstance(model, type) and issubclass(model, RequestModel) and model is not RequestModel
]


@pytest.mark.parametrize("model", REQUESTS)
def test_null_is_not_given_for_every_optional_field_of_every_request(
    model: type[RequestModel],
) -> None:
    optional = [name for name, field in model.model_fields.items() if not field.is_required()]
    assert len(optional) > 5
    needed = {} if "prompt" in optional else {"prompt": "a cat"}
    usual = model.model_validate(needed)
    assert model.model_validate({**needed, **dict.fromkeys(optional)}) == usual
    schema = Draft202012Validator(model.model_json_schema())
    for name in optional:
        assert model.model_validate({**needed, name: None}) == usual
        assert schema.is_valid({**needed, name: None})


@pytest.mark.parametrize("model", [each for each in REQUESTS if "prompt" in each.model_fields])
def test_a_text_that_is_not_valid_unicode_is_refused(model: type[RequestModel]) -> None:
    """Half a character, which JSON can hold and nothing can be drawn of."""
    lone: dict[str, Any] = {"prompt": "\ud800"}
    with pytest.raises(ValidationError, match="prompt"):
        model.model_validate(lone)


def test_an_error_has_openai_s_four_fields() -> None:
    data = shapes.ErrorData(message="a", type="server_error")
    dumped = shapes.ErrorBody(error=data).model_dump()
    assert dumped == {
        "error": {"message": "a", "type": "server_error", "param": None, "code": None}
    }
