from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sdpack.documents.catalog_files import find_catalog
from sdpack.documents.conditioning import Family, Input
from sdpack.errors import SourceError
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.families import (
    conditioning_of,
    denoiser_sizes,
    family_of,
    latent_channels,
    latent_step,
    most_rows,
    pooled_width,
    states_width,
    widest_numbers,
)

SAMPLING = find_catalog("sd15").catalog.sampling
OF_MODEL = {
    "sd": Family.SD,
    "lcm": Family.SD,
    "sdxl": Family.SDXL,
    "sd3": Family.SD3,
    "pixart": Family.PIXART,
    "pixart of 1024": Family.PIXART,
    "flux schnell": Family.FLUX,
    "flux dev": Family.FLUX,
}


def denoiser(folder: Path) -> Checkpoint:
    return Checkpoint(next(folder / n for n in ("unet", "transformer") if (folder / n).is_dir()))


@pytest.mark.parametrize("name", OF_MODEL)
def test_a_denoiser_s_config_tells_its_family(models: Callable[[str], Path], name: str) -> None:
    assert family_of(denoiser(models(name))) is OF_MODEL[name]


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("sd", ()),
        ("lcm", (Input.TIMESTEP_COND,)),
        ("sdxl", (Input.TEXT_EMBEDS, Input.TIME_IDS)),
        ("sd3", (Input.POOLED_PROJECTIONS,)),
        ("pixart", (Input.MASK,)),
        ("pixart of 1024", (Input.MASK, Input.RESOLUTION, Input.ASPECT_RATIO)),
        ("flux schnell", (Input.POOLED_PROJECTIONS,)),
        ("flux dev", (Input.POOLED_PROJECTIONS, Input.GUIDANCE)),
    ],
)
def test_a_denoiser_s_config_tells_its_inputs(
    models: Callable[[str], Path], name: str, inputs: tuple[Input, ...]
) -> None:
    assert conditioning_of(denoiser(models(name)), SAMPLING).inputs == inputs


@pytest.mark.parametrize("name", OF_MODEL)
def test_widths_are_those_of_the_weights(models: Callable[[str], Path], name: str) -> None:
    """By the first layers that read latents, states and pooled texts."""
    checkpoint = denoiser(models(name))
    family, config = family_of(checkpoint), checkpoint.config
    shapes = {key: tuple(shape) for key, shape in checkpoint.shapes()}
    first = {Family.SD: "conv_in", Family.SDXL: "conv_in", Family.FLUX: "x_embedder"}
    channels = shapes[f"{first.get(family, 'pos_embed.proj')}.weight"][1]
    assert latent_channels(family, config) == channels // (4 if family is Family.FLUX else 1)
    (states,) = {
        shape[1]
        for key, shape in shapes.items()
        if key in ("context_embedder.weight", "caption_projection.linear_1.weight")
        or (key.endswith("attn2.to_k.weight") and family in (Family.SD, Family.SDXL))
    }
    assert states_width(family, config) == states
    pooled = shapes.get("time_text_embed.text_embedder.linear_1.weight")
    if family is Family.SDXL:
        added = shapes["add_embedding.linear_1.weight"][1]
        assert pooled_width(family, config) == added - 6 * config["addition_time_embed_dim"]
    else:
        assert pooled_width(family, config) == (pooled[1] if pooled else 0)


@pytest.mark.parametrize(("name", "step"), [("sd", 2), ("sd3", 2), ("pixart", 2), ("flux dev", 2)])
def test_sides_are_multiples_of_what_a_denoiser_halves_or_cuts(
    models: Callable[[str], Path], name: str, step: int
) -> None:
    checkpoint = denoiser(models(name))
    assert latent_step(OF_MODEL[name], checkpoint.config) == step


def test_only_stable_diffusion_3_has_a_last_position(models: Callable[[str], Path]) -> None:
    rows = {name: most_rows(OF_MODEL[name], denoiser(models(name)).config) for name in OF_MODEL}
    # 12 positions of 2 latent pixels.
    assert rows == {name: 24 if name == "sd3" else 0 for name in OF_MODEL}


@pytest.mark.parametrize(
    ("name", "numbers"),
    # The first block's channels at every latent pixel; a transformer's width at every token.
    [("sd", 8 * 96), ("sd3", 2 * 8 * 96 // 4), ("pixart", 2 * 12 * 96 // 4), ("flux dev", 32 * 24)],
)
def test_the_widest_hidden_states_are_counted(
    models: Callable[[str], Path], name: str, numbers: int
) -> None:
    assert widest_numbers(denoiser(models(name)), 8 * 12) == numbers


def test_every_input_has_a_size(models: Callable[[str], Path]) -> None:
    checkpoint = denoiser(models("sdxl"))
    conditioning = conditioning_of(checkpoint, SAMPLING)
    assert denoiser_sizes(conditioning, checkpoint.config, 2, (8, 12), 77) == {
        "sample": (2, 4, 8, 12),
        "timestep": (1,),
        "encoder_hidden_states": (2, 77, 16 + 24),
        "text_embeds": (2, 24),
        "time_ids": (2, 6),
    }


@pytest.mark.parametrize("width", [None, [16, 16]])
def test_a_config_without_a_single_width_is_refused(width: Any) -> None:
    with pytest.raises(SourceError, match=r"cross_attention_dim is .*; sdpack supports one number"):
        states_width(Family.SD, {"cross_attention_dim": width})
