from __future__ import annotations

import inspect

import diffusers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.documents.conditioning import (
    DISTILLED,
    ENCODER_OUTPUTS,
    Conditioning,
    Family,
    Input,
    NegativeSource,
    encoder_outputs,
)
from sdpack.domain.placement import TEXT_ENCODERS

PIPELINES = {
    Family.SD: "StableDiffusionPipeline",
    Family.SDXL: "StableDiffusionXLPipeline",
    Family.SD3: "StableDiffusion3Pipeline",
    Family.PIXART: "PixArtAlphaPipeline",
    Family.FLUX: "FluxPipeline",
    Family.CHROMA: "ChromaPipeline",
    Family.FLUX2: "Flux2KleinPipeline",
    Family.Z_IMAGE: "ZImagePipeline",
    Family.SANA: "SanaPipeline",
    Family.LUMINA2: "Lumina2Pipeline",
    Family.QWEN_IMAGE: "QwenImagePipeline",
    Family.OVIS_IMAGE: "OvisImagePipeline",
}


@pytest.mark.parametrize("family", Family)
def test_a_family_has_the_text_encoders_of_its_pipeline_in_diffusers(family: Family) -> None:
    pipeline = getattr(diffusers, PIPELINES[family])
    parameters = inspect.signature(pipeline.__init__).parameters
    named = sorted(name for name in parameters if name.startswith("text_encoder"))
    outputs = [encoder_outputs(family, role) for role in TEXT_ENCODERS[: len(named)]]
    assert tuple(outputs) == ENCODER_OUTPUTS[family]


@pytest.mark.parametrize(
    ("class_name", "inputs"),
    [
        ("UNet2DConditionModel", {Input.TIMESTEP_COND}),
        ("SD3Transformer2DModel", {Input.POOLED_PROJECTIONS}),
        ("FluxTransformer2DModel", {Input.POOLED_PROJECTIONS, Input.GUIDANCE}),
        ("PixArtTransformer2DModel", {Input.MASK}),
        ("SanaTransformer2DModel", {Input.MASK}),
    ],
)
def test_inputs_have_the_names_that_diffusers_gives_them(
    class_name: str, inputs: set[Input]
) -> None:
    taken = inspect.signature(getattr(diffusers, class_name).forward).parameters
    assert {found.value for found in inputs} <= taken.keys()


@given(
    st.sampled_from(Family),
    st.sets(st.sampled_from(Input)),
    st.floats(0, 20),
)
def test_guidance_runs_twice_above_a_weight_of_one_unless_the_scale_is_an_input(
    family: Family, inputs: set[Input], scale: float
) -> None:
    told = family is Family.FLUX or bool(inputs & DISTILLED)
    conditioning = Conditioning(family=family, inputs=tuple(inputs))
    weight = scale + 1 if family is Family.Z_IMAGE else scale
    assert conditioning.weight(scale) == weight
    assert conditioning.guided(scale) == (weight > 1 and not told)


NONE, ZEROS, TEXT = NegativeSource.NONE, NegativeSource.ZEROS, NegativeSource.TEXT


@pytest.mark.parametrize(
    ("conditioning", "guidance_scale", "negative_prompt", "source"),
    [
        (Conditioning(), 7.5, "", TEXT),
        (Conditioning(), 7.5, "blurry", TEXT),
        (Conditioning(), 1.0, "blurry", NONE),
        (Conditioning(family=Family.SDXL, zero_empty=True), 5.0, "", ZEROS),
        (Conditioning(family=Family.SDXL, zero_empty=True), 5.0, "blurry", TEXT),
        (Conditioning(family=Family.SDXL, zero_empty=True), 1.0, "", NONE),
        (Conditioning(family=Family.FLUX), 3.5, "blurry", NONE),
        (Conditioning(family=Family.FLUX2), 1.0, "blurry", NONE),
        (Conditioning(family=Family.FLUX2), 4.0, "blurry", TEXT),
        (Conditioning(family=Family.FLUX2, distilled=True), 4.0, "blurry", NONE),
        (Conditioning(family=Family.Z_IMAGE), 0.0, "blurry", NONE),
        (Conditioning(family=Family.Z_IMAGE), 1.0, "blurry", TEXT),
        (Conditioning(inputs=(Input.TIMESTEP_COND,)), 8.0, "blurry", NONE),
    ],
)
def test_guidance_moves_away_from_what_diffusers_pipelines_take(
    conditioning: Conditioning, guidance_scale: float, negative_prompt: str, source: NegativeSource
) -> None:
    assert conditioning.negative(guidance_scale, negative_prompt) is source
