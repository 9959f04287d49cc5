from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from sdpack.domain.precision import Precision, Runtime
from sdpack.errors import QuantizationError
from sdpack.quantization.layers import layers
from sdpack.quantization.schemes import (
    ABILITIES,
    UNIFORM,
    Number,
    Scheme,
    parse_scheme,
    suited,
)

from tests.sdpack.graphs import embedding, linear

GPU, CPU = ABILITIES[Runtime.TENSORRT_RTX], ABILITIES[Runtime.ONNXRUNTIME_CPU]


@pytest.mark.parametrize("words", ["int8", "fp8", "w8", "w4:32", "w4:128"])
def test_words_and_back(words: str) -> None:
    assert str(parse_scheme(words)) == words


@pytest.mark.parametrize("words", ["", "w5", "int4", "w4:0", "w4:7", "w4:4096"])
def test_other_words_are_refused(words: str) -> None:
    with pytest.raises(QuantizationError, match="choose int8"):
        parse_scheme(words)


@pytest.mark.parametrize(
    ("summed", "asked", "had"),
    [(64, "w4:32", "w4:32"), (112, "w4:32", "w4:16"), (192, "w4:128", "w4:64"), (63, "w4", "w8")],
)
def test_a_block_that_does_not_divide_the_sum_is_halved(summed: int, asked: str, had: str) -> None:
    (layer,) = layers(linear(np.ones((summed, 48), np.float32)))
    assert str(suited(layer, parse_scheme(asked), GPU)) == had


def test_tables_are_stored_as_the_runtime_can_look_them_up() -> None:
    (layer,) = layers(embedding(np.ones((100, 64), np.float32)))
    assert str(suited(layer, UNIFORM[Precision.W4], GPU)) == "w4:32"
    assert str(suited(layer, UNIFORM[Precision.W4], CPU)) == "w8"
    assert str(suited(layer, UNIFORM[Precision.INT8], GPU)) == "w8"


def test_bytes_are_those_of_numbers_and_scales() -> None:
    (layer,) = layers(linear(np.ones((64, 48), np.float32)))
    assert Scheme(Number.INT4, 32).bytes_of(layer, 2) == 64 * 48 // 2 + 2 * 48 * 2
    assert Scheme(Number.INT8).bytes_of(layer, 4) == 64 * 48 + 48 * 4


@pytest.mark.parametrize("number", Number)
def test_rounding_is_to_the_nearest_the_type_can_hold(number: Number) -> None:
    values = np.linspace(-600, 600, 9001, dtype=np.float32)
    rounded = number.rounded(values)
    assert np.array_equal(rounded.astype(number.dtype).astype(np.float32), rounded)
    every = np.unique(rounded)
    nearest = every[np.abs(values[:, None] - every[None, :]).argmin(axis=1)]
    assert np.abs(rounded - values) == pytest.approx(np.abs(nearest - values))
    assert every.max() == number.largest


def test_float8_is_that_of_the_open_compute_project() -> None:
    assert Number.FP8.rounded(np.array([0.3], np.float32))[0] == np.float32(
        ml_dtypes.float8_e4m3fn(0.3)
    )


def test_what_feeds_an_attention_is_left_alone_where_unpacking_it_costs_more() -> None:
    (layer,) = layers(linear(np.ones((64, 48), np.float32)))
    layer = replace(layer, feeds_attention=True)
    assert suited(layer, parse_scheme("w4"), GPU) is None
    assert suited(layer, parse_scheme("w4"), CPU) == parse_scheme("w4")
    assert suited(layer, parse_scheme("int8"), GPU) == parse_scheme("int8")


def test_inputs_with_one_row_per_image_are_rounded_in_no_int8() -> None:
    (layer,) = layers(linear(np.ones((64, 48), np.float32)))
    embedding_of_timestep = replace(layer, has_few_rows=True)
    assert suited(embedding_of_timestep, parse_scheme("int8"), GPU) == parse_scheme("w8")
    assert suited(embedding_of_timestep, parse_scheme("fp8"), GPU) == parse_scheme("fp8")
    assert suited(embedding_of_timestep, parse_scheme("w4"), GPU) == parse_scheme("w4")
