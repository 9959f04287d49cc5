from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sdpack.documents.catalog_files import default_catalog
from sdpack.documents.profile import find_profile, parse_sizes
from sdpack.domain.input_range import InputRange
from sdpack.domain.placement import Guidance, Placement, Role
from sdpack.domain.precision import Precision
from sdpack.domain.tiles import Split
from sdpack.errors import CatalogError, UnsupportedGraphError
from sdpack.pack.candidates import Candidates
from sdpack.pack.planning.mix import Variant
from sdpack.pack.request import BuildRequest
from sdpack.pack.variants.shapes import InputShapes

DENOISER = Variant(Role.DENOISER, "s", Precision.FP16)
DECODER = Variant(Role.DECODER, "kl", Precision.FP16)
ENCODER = Variant(Role.TEXT_ENCODER, "m", Precision.FP16, "s")


def shapes(profile: str = "4gb-gpu", **settings: Any) -> InputShapes:
    request = BuildRequest(find_profile(profile), default_catalog(), Path("x"), **settings)
    return InputShapes(Candidates(request), lambda _: 16)


def test_an_engine_supports_smaller_batches_and_sizes_too() -> None:
    sizes = parse_sizes("64, 128x64, 64x96")
    inputs = shapes(asked_sizes=sizes, asked_batch=4)
    decoder = inputs.ranges(DECODER, Placement())["latent_sample"]
    assert decoder.smallest == (1, 16, 8, 8)
    assert decoder.best == (4, 16, 8, 8)
    assert decoder.largest == (4, 16, 12, 16)
    denoiser = inputs.ranges(DENOISER, Placement())
    assert denoiser["sample"].smallest == (1, 16, 8, 8), "without guidance nothing is doubled"
    assert denoiser["sample"].largest == (8, 16, 12, 16)
    assert "timestep" not in denoiser
    encoder = inputs.ranges(ENCODER, Placement())["input_ids"]
    assert encoder.smallest == (1, 16), "a negative prompt is encoded alone"
    assert encoder.largest == (4, 16)


def test_the_largest_shape_is_that_of_an_existing_size() -> None:
    inputs = shapes(asked_sizes=parse_sizes("64,128x64,64x96"))
    assert inputs.largest(DECODER, Placement())["latent_sample"][2:] == (8, 16)


def test_batched_guidance_doubles_the_denoiser_s_rows() -> None:
    batched = shapes().largest(DENOISER, Placement())
    halves = shapes().largest(DENOISER, Placement(guidance=Guidance.SEQUENTIAL))
    batch = find_profile("4gb-gpu").shapes.batch
    assert batched["sample"] == (2 * batch, 16, 8, 8)
    assert batched["encoder_hidden_states"] == (2 * batch, 16, 64)
    assert halves["sample"] == (batch, 16, 8, 8)
    assert batched["timestep"] == (1,)


def test_a_tile_bounds_the_inputs_of_the_decoder_s_tail() -> None:
    split = Split(channels=64, factor=2, halo=4, norms=9, groups=4)
    inputs = shapes("8gb-gpu", asked_sizes=parse_sizes("64,128x64"), asked_batch=2)
    (whole,) = inputs.pieces(DECODER, Placement(), split)
    assert whole.ranges == inputs.ranges(DECODER, Placement())
    stem, tail = inputs.pieces(DECODER, Placement(tile=8), split)
    assert (stem.file, tail.file) == ("stem.onnx", "tail.onnx")
    assert stem.largest == whole.largest
    assert tail.ranges["features"] == InputRange((1, 64, 16, 16), (2, 64, 16, 16), (2, 64, 16, 20))
    assert tail.ranges["core"].largest == (1, 1, 16, 20), "two tiles of 16, each with 4 more"
    assert tail.ranges["given"].largest == (2, 9, 2, 4)
    assert tail.largest["shared"] == (1,)
    assert "shared" not in tail.ranges


def test_a_smaller_image_may_have_larger_tiles() -> None:
    split = Split(channels=64, factor=2, halo=6, norms=0, groups=0)
    inputs = shapes("8gb-gpu", asked_sizes=parse_sizes("1024x576,1024x512"), asked_batch=1)
    tiled = inputs.tiled_latents(DECODER, Placement(tile=64), split)
    assert tiled == [(1, 16, 72, 128), (1, 16, 64, 128)]
    _, tail = inputs.pieces(DECODER, Placement(tile=64), split)
    assert tail.largest["features"] == (1, 64, 128, 134)
    alone = shapes("8gb-gpu", asked_sizes=parse_sizes("1024x576"), asked_batch=1)
    assert len(alone.tiled_latents(DECODER, Placement(tile=64), split)) == 1


def test_a_tail_without_norms_takes_only_features() -> None:
    split = Split(channels=64, factor=2, halo=3, norms=0, groups=0)
    _, tail = shapes().pieces(DECODER, Placement(tile=4), split)
    assert set(tail.ranges) == set(tail.largest) == {"features"}


def test_only_a_decoder_is_split_into_tiles_and_only_if_it_can_be() -> None:
    (unet,) = shapes().pieces(DENOISER, Placement(tile=4), None)
    assert unet.file == "model.onnx"
    with pytest.raises(UnsupportedGraphError, match="decoder kl cannot be split into tiles"):
        shapes().pieces(DECODER, Placement(tile=4), None)


def test_a_text_encoder_reads_whole_prompts() -> None:
    assert shapes("8gb-gpu").largest(ENCODER, Placement())["input_ids"][1] == 16


def test_encoders_of_different_lengths_are_refused() -> None:
    candidates = shapes().candidates
    mixed = InputShapes(candidates, lambda name: {"s": 16, "m": 77, "l": 16}[name])
    with pytest.raises(CatalogError, match=r"denoiser s: .*\[16, 77\]"):
        mixed.ranges(DENOISER, Placement())
