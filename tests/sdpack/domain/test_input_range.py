import pytest
from pydantic import TypeAdapter, ValidationError
from sdpack.domain.input_range import InputRange


def test_a_fixed_input_has_one_shape() -> None:
    shape = (1, 4, 8, 8)
    assert InputRange.fixed(shape) == InputRange(shape, shape, shape)


def test_a_manifest_stores_it_as_it_is_and_refuses_other_keys() -> None:
    stored = TypeAdapter(InputRange)
    values = {"smallest": [1, 4], "best": [2, 4], "largest": [8, 4]}
    assert stored.dump_python(stored.validate_python(values), mode="json") == values
    for wrong in ({**values, "other": [1]}, {**values, "best": [0, 4]}):
        with pytest.raises(ValidationError):
            stored.validate_python(wrong)
