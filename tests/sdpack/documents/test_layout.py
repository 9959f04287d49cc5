from __future__ import annotations

import pytest
from sdpack.documents.layout import plan_name, portable_name, sampler_name, ships, tokenizer_name
from sdpack.domain.placement import Role


def test_the_portable_folders_are_those_optimum_reads() -> None:
    sdxl = (Role.TEXT_ENCODER, Role.TEXT_ENCODER_2, Role.DENOISER, Role.DECODER)
    named = [portable_name(role, "UNet2DConditionModel") for role in sdxl]
    assert named == ["text_encoder", "text_encoder_2", "unet", "vae_decoder"]
    assert portable_name(Role.DENOISER, "SD3Transformer2DModel") == "transformer"
    assert tokenizer_name(Role.TEXT_ENCODER) == "onnx/tokenizer"
    assert tokenizer_name(Role.TEXT_ENCODER_3) == "onnx/tokenizer_3"


@pytest.mark.parametrize(
    ("size", "steps", "name"),
    [
        (None, None, "sampler.json"),
        (None, 20, "sampler-20.json"),
        ((512, 768), None, "sampler-768x512.json"),
        ((512, 768), 20, "sampler-768x512-20.json"),
    ],
)
def test_a_sampler_is_named_by_what_is_not_usual(
    size: tuple[int, int] | None, steps: int | None, name: str
) -> None:
    assert sampler_name(size, steps) == name


def test_a_plan_is_named_by_its_role_and_the_piece_of_a_part_that_is_cut() -> None:
    assert plan_name(Role.DENOISER, "onnx/unet/model.onnx") == "engines/denoiser.plan"
    assert plan_name(Role.DENOISER, "onnx/unet/sliced.onnx") == "engines/denoiser.plan"
    assert plan_name(Role.DECODER, "onnx/vae_decoder/head.onnx") == "engines/decoder-head.plan"


@pytest.mark.parametrize(
    "name", ["manifest.json", "verified.json", "report.html", "charts/quality.png"]
)
def test_files_added_to_a_finished_bundle_do_not_ship(name: str) -> None:
    assert not ships(name)


@pytest.mark.parametrize(
    "name", ["onnx/unet/model.onnx", "ledger.jsonl", "samples.png", "onnx/charts/model.onnx"]
)
def test_all_other_files_ship(name: str) -> None:
    assert ships(name)
