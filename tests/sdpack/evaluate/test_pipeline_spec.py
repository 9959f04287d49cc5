from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sdpack.documents.conditioning import Conditioning
from sdpack.domain.latents import LatentSpace
from sdpack.domain.placement import Role
from sdpack.evaluate.pipeline_spec import (
    EvaluationSet,
    LoadablePart,
    PipelineSpec,
    SamplingConfig,
)

from tests.sdpack.runtime.test_pipeline import TABLE

SPACE = LatentSpace(channels=4, pixels=8, scaling_factor=1.0, shift_factor=0.0)
SAMPLING = SamplingConfig(TABLE, Conditioning(), 2.0, negative_prompt="rain")


def spec(**contents: str) -> PipelineSpec:
    def load() -> Any:
        raise AssertionError("nothing is loaded")

    names = {"text_encoder": "e", "denoiser": "d", "decoder": "v", **contents}
    parts = {Role(role): LoadablePart(name, load) for role, name in names.items()}
    return PipelineSpec(parts, SAMPLING, SPACE)


def test_a_spec_s_contents_name_every_part_and_how_it_is_run() -> None:
    assert spec().contents == {
        "text_encoder": "e",
        "denoiser": "d",
        "decoder": "v",
        "recipe": SAMPLING.content,
    }
    assert list(spec(text_encoder_2="f").encoders) == [Role.TEXT_ENCODER, Role.TEXT_ENCODER_2]
    assert (spec().denoiser.content, spec().decoder.content) == ("d", "v")


@pytest.mark.parametrize(
    "changed", [{"guidance_scale": 3.0}, {"guidance_rescale": 0.5}, {"negative_prompt": "snow"}]
)
def test_other_sampling_has_another_hash(changed: dict[str, Any]) -> None:
    assert replace(SAMPLING, **changed).content != SAMPLING.content


def test_prompt_number_i_starts_from_seed_i() -> None:
    prompts = EvaluationSet(["a", "b", "c"], 64, 32)
    request = prompts.request([2, 0], SAMPLING)
    assert (request.prompts, request.seeds) == (["c", "a"], [2, 0])
    assert (request.height, request.width, request.negative_prompt) == (64, 32, "rain")
    assert prompts.inputs([2, 0]) == {"prompts": ["c", "a"], "seeds": [2, 0], "size": [64, 32]}


def test_chunks_end_at_multiples_of_their_size_wherever_the_prompts_start() -> None:
    small = EvaluationSet([], 64, 64)
    assert [len(chunk) for chunk in small.chunks(range(16, 64))] == [16, 16, 16]
    assert small.chunks(range(10, 20)) == [list(range(10, 16)), list(range(16, 20))]
    assert small.chunks([]) == []
    assert [number for chunk in small.chunks(range(100)) for number in chunk] == list(range(100))


def test_each_large_image_is_a_chunk() -> None:
    assert EvaluationSet([], 512, 512).chunks(range(3, 6)) == [[3], [4], [5]]


def test_prompts_are_encoded_in_whole_groups() -> None:
    task = EvaluationSet([f"prompt {number}" for number in range(40)], 512, 512)
    assert task.groups([3]) == [list(range(16))]
    assert task.groups([33, 2, 3]) == [list(range(16)), list(range(32, 40))]


def test_judges_compare_images_with_captions_where_these_differ() -> None:
    plain = EvaluationSet(["a", "b"], 64, 64)
    assert plain.caption(1) == "b"
    assert plain.judged([0, 1]) == {}
    other = EvaluationSet(["ein Hund", "b"], 64, 64, ["a dog", "b"])
    assert other.caption(0) == "a dog"
    assert other.judged([0, 1]) == {"captions": ["a dog", "b"]}
    assert other.judged([1]) == {}
    assert other.inputs([0]) == EvaluationSet(["ein Hund"], 64, 64).inputs([0]), "the same image"
