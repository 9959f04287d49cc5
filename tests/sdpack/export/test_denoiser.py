"""Tiny random denoisers as parts, beside their models called as diffusers' pipelines call them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from sdpack.documents.conditioning import Family, Input
from sdpack.export.denoiser import DenoiserPart
from sdpack.export.families import conditioning_of
from sdpack.export.graph import Shape
from torch import Tensor

from tests.sdpack.export.test_families import OF_MODEL, SAMPLING, denoiser


def by_diffusers(model: Any, family: Family, given: Mapping[str, Tensor]) -> Tensor:
    """What a pipeline of diffusers takes as the model's prediction."""
    sample, every = given["sample"], given["timestep"].expand(len(given["sample"]))
    rest: dict[str, Any] = {
        name: value for name, value in given.items() if name not in ("sample", "timestep")
    }
    match family:
        case Family.SDXL:
            added = {name: rest.pop(name) for name in (Input.TEXT_EMBEDS, Input.TIME_IDS)}
            rest["added_cond_kwargs"] = added
        case Family.PIXART:
            sizes = (Input.RESOLUTION, Input.ASPECT_RATIO)
            rest["added_cond_kwargs"] = {name: rest.pop(name, None) for name in sizes}
        case Family.FLUX:
            return by_flux(model, sample, every, rest)
    latents = "sample" if family in (Family.SD, Family.SDXL) else "hidden_states"
    noise: Tensor = model(**{latents: sample}, timestep=every, **rest).sample
    return noise[:, : sample.shape[1]]


def by_flux(model: Any, sample: Tensor, every: Tensor, rest: dict[str, Any]) -> Tensor:
    batch, channels, height, width = sample.shape
    packed = FluxPipeline._pack_latents(sample, batch, channels, height, width)
    places = FluxPipeline._prepare_latent_image_ids(
        batch, height // 2, width // 2, sample.device, sample.dtype
    )
    texts = torch.zeros(rest["encoder_hidden_states"].shape[1], 3)
    if Input.GUIDANCE in rest:
        rest[Input.GUIDANCE] = rest[Input.GUIDANCE].expand(batch)
    noise = model(packed, timestep=every / 1000, img_ids=places, txt_ids=texts, **rest).sample
    # It counts in pixels, eight to a latent pixel.
    unpacked: Tensor = FluxPipeline._unpack_latents(noise, 8 * height, 8 * width, 8)
    return unpacked


@pytest.mark.parametrize("name", OF_MODEL)
def test_a_part_predicts_what_its_model_does(models: Callable[[str], Path], name: str) -> None:
    checkpoint = denoiser(models(name))
    conditioning = conditioning_of(checkpoint, SAMPLING)
    model: Any = checkpoint.load()
    part = DenoiserPart(copy.deepcopy(model), conditioning)
    # Of any size; but diffusers' PixArt knows the positions of its own size alone by heart.
    side = model.config["sample_size"] if conditioning.family is Family.PIXART else 6
    torch.manual_seed(0)
    given = part.inputs(Shape(2, side, side))
    assert given.keys() == part.dynamic.keys()
    with torch.no_grad():
        seen, wanted = part.module(**given), by_diffusers(model, conditioning.family, given)
    assert seen.shape == given["sample"].shape
    assert torch.allclose(seen, wanted, atol=1e-4)
