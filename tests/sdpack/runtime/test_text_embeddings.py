from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from diffusers.pipelines.latent_consistency_models.pipeline_latent_consistency_text2img import (
    LatentConsistencyModelPipeline,
)
from numpy.typing import NDArray
from sdpack.documents.conditioning import Conditioning, Family, Input, NegativeSource
from sdpack.domain.placement import Role
from sdpack.runtime.text_embeddings import (
    TextEmbeddings,
    denoiser_inputs,
    encode_text,
    join_embeddings,
    scale_embedding,
)
from sdpack.runtime.tokenizer import PromptTokenizer

TOKENIZER = PromptTokenizer(Path(__file__).parents[3] / "zoo" / "parts" / "tokenizer")
RNG = np.random.default_rng(0)


def by_encoder(tokens: int, width: int, pooled: int = 0, count: int = 2) -> TextEmbeddings:
    return TextEmbeddings(
        RNG.standard_normal((count, tokens, width), np.float32) if width else None,
        RNG.standard_normal((count, pooled), np.float32) if pooled else None,
    )


def states(text: TextEmbeddings) -> NDArray[np.float32]:
    assert text.states is not None
    return text.states


def test_sdxl_hears_both_encoders_side_by_side_and_the_second_s_pooled_text() -> None:
    first, second = by_encoder(5, 3), by_encoder(5, 4, pooled=6)
    found = join_embeddings(
        Conditioning(family=Family.SDXL),
        {Role.TEXT_ENCODER_2: second, Role.TEXT_ENCODER: first},
    )
    wanted = [states(text) for text in (first, second)]
    assert np.array_equal(states(found), np.concatenate(wanted, -1))
    assert found.pooled is second.pooled


@pytest.mark.parametrize("with_t5", [True, False])
def test_sd3_hears_zeros_where_t5_was_left_out(with_t5: bool) -> None:
    conditioning = Conditioning(family=Family.SD3, states_width=10, absent_tokens=4)
    parts = {Role.TEXT_ENCODER: by_encoder(5, 3, 2), Role.TEXT_ENCODER_2: by_encoder(5, 4, 3)}
    if with_t5:
        parts[Role.TEXT_ENCODER_3] = by_encoder(6, 10)
    found = join_embeddings(conditioning, parts)
    assert found.states is not None
    assert found.states.shape == (2, 5 + (6 if with_t5 else 4), 10)
    assert np.array_equal(found.states[:, :5, 3:7], states(parts[Role.TEXT_ENCODER_2]))
    assert (found.states[:, :5, 7:] == 0).all()
    assert (found.states[:, 5:] == 0).all() == (not with_t5)
    assert found.pooled is not None
    assert found.pooled.shape == (2, 5)


def test_flux_hears_the_t5_and_the_clip_s_pooled_text() -> None:
    clip, t5 = by_encoder(5, 0, pooled=3), by_encoder(7, 4)
    found = join_embeddings(
        Conditioning(family=Family.FLUX), {Role.TEXT_ENCODER: clip, Role.TEXT_ENCODER_2: t5}
    )
    assert found.states is t5.states
    assert found.pooled is clip.pooled


def test_ovis_image_reads_zeros_for_padding() -> None:
    text = TextEmbeddings(np.ones((2, 3, 4), np.float32), mask=np.array([[1, 1, 1], [1, 0, 0]]))
    conditioning = Conditioning(family=Family.OVIS_IMAGE)
    states = join_embeddings(conditioning, {Role.TEXT_ENCODER: text}).states
    assert states is not None
    assert states.dtype == np.float32
    assert states[:, :, 0].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_texts_can_be_cut_repeated_and_silenced() -> None:
    text = replace(by_encoder(3, 2, pooled=4, count=3), mask=np.ones((3, 3), np.int64))
    assert len(text) == 3
    parts = [text.rows(0, 1), text.rows(1, 3)]
    again = TextEmbeddings.concatenated(parts)
    assert all(np.array_equal(again.arrays()[n], a) for n, a in text.arrays().items())
    assert len(text.rows(0, 1).repeated(5)) == 5
    assert text.as_negative(NegativeSource.NONE) is None
    assert text.as_negative(NegativeSource.TEXT) is text
    silent = text.as_negative(NegativeSource.ZEROS)
    assert silent is not None
    assert silent.states is not None
    assert not silent.states.any()
    assert silent.mask is text.mask, "padding stays padding"


def test_a_denoiser_is_told_what_its_graph_takes() -> None:
    conditioning = Conditioning(
        family=Family.SDXL,
        inputs=(Input.TEXT_EMBEDS, Input.TIME_IDS, Input.TIMESTEP_COND),
        guidance_width=8,
    )
    text = by_encoder(3, 2, pooled=4)
    given = denoiser_inputs(conditioning, text, 5.0, 96, 64)
    assert set(given) == {"encoder_hidden_states", "text_embeds", "time_ids", "timestep_cond"}
    assert given["time_ids"].tolist() == [[96, 64, 0, 0, 96, 64]] * 2
    assert given["timestep_cond"].shape == (2, 8)
    sizes = Conditioning(family=Family.PIXART, inputs=(Input.RESOLUTION, Input.ASPECT_RATIO))
    given = denoiser_inputs(sizes, text, 5.0, 96, 64)
    assert given["resolution"].tolist() == [[96, 64]] * 2
    assert given["aspect_ratio"].tolist() == [[1.5]] * 2
    scale = Conditioning(family=Family.FLUX, inputs=(Input.GUIDANCE,))
    assert denoiser_inputs(scale, text, 3.5, 8, 8)["guidance"].tolist() == [3.5]


@pytest.mark.parametrize(("scale", "width"), [(1.0, 8), (8.0, 256), (3.3, 7)])
def test_the_scale_is_embedded_as_diffusers_does(scale: float, width: int) -> None:
    wanted = LatentConsistencyModelPipeline.get_guidance_scale_embedding(
        None, torch.tensor([scale - 1], dtype=torch.float64), width, torch.float64
    )
    assert scale_embedding(scale, width) == pytest.approx(wanted[0].numpy(), abs=2e-3)


@pytest.mark.parametrize(
    ("inputs", "scale", "twice"),
    [((), 3.0, True), ((), 1.0, False), ((Input.GUIDANCE,), 3.0, False)],
)
def test_who_is_told_the_scale_is_asked_once(
    inputs: tuple[Input, ...], scale: float, twice: bool
) -> None:
    assert Conditioning(inputs=inputs).guided(scale) == twice


class Echo:
    """A text encoder that says what it was given."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.inputs = dict(inputs)
        return {"last_hidden_state": inputs["input_ids"][..., None].astype(np.float64)}

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def test_only_a_masked_encoder_is_told_what_is_padding() -> None:
    echo = Echo()
    plain = encode_text(echo, TOKENIZER, ["A Cat "], Conditioning(), Role.TEXT_ENCODER)
    assert set(echo.inputs) == {"input_ids"}
    assert plain.mask is None
    assert plain.states is not None
    assert plain.states.dtype == np.float32
    pixart = Conditioning(family=Family.PIXART, lowercase=True)
    masked = encode_text(echo, TOKENIZER, ["A Cat "], pixart, Role.TEXT_ENCODER)
    assert masked.mask is not None
    assert 0 < masked.mask.sum() < masked.mask.size
    assert np.array_equal(echo.inputs["input_ids"], TOKENIZER.ids(["a cat"]))
