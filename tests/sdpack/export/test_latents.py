"""What a decoder's config says of its latents, against the decoder itself and diffusers' rules."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from sdpack.documents.conditioning import Family
from sdpack.errors import SourceError
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.decoder import DecoderPart
from sdpack.export.latents import enlargement, latents_of, least_channels
from torch import nn

from tests.e2e.language_families import video_decoder


def kl(blocks: int, **settings: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(4,) * blocks,
        norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        **settings,
    ).eval()


def tiny(blocks: int, **settings: Any) -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(4,) * blocks,
        decoder_block_out_channels=(4,) * blocks,
        num_encoder_blocks=(1,) * blocks,
        num_decoder_blocks=(1,) * blocks,
        **settings,
    ).eval()


DECODERS: dict[str, Callable[[], nn.Module]] = {
    **{f"KL of {n}": partial(kl, n) for n in (1, 2, 3, 4, 5)},
    **{f"tiny of {n}": partial(tiny, n) for n in (1, 2, 3, 5)},
    "tiny by threes": lambda: tiny(3, upsampling_scaling_factor=3),
    "KL as its class makes it": AutoencoderKL,
    "tiny as its class makes it": AutoencoderTiny,
}


@pytest.mark.parametrize("name", DECODERS)
def test_the_config_tells_how_much_a_decoder_enlarges(name: str) -> None:
    model: Any = DECODERS[name]()
    with torch.no_grad():
        made = model.decode(torch.zeros(1, 4, 2, 3), return_dict=False)[0]
    times = enlargement(type(model).__name__, model.config)
    assert made.shape[-2:] == (2 * times, 3 * times)
    assert DecoderPart(model).outputs == ("sample",)
    assert (
        enlargement(type(model).__name__, {})
        == {"AutoencoderKL": 1, "AutoencoderTiny": 8}[type(model).__name__]
    ), "what the class takes where the config says nothing"


def saved(folder: Path, model: Any, **changes: Any) -> Checkpoint:
    model.save_config(folder)
    path = folder / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value != "absent"}))
    return Checkpoint(folder)


@pytest.mark.parametrize(
    ("family", "shift"),
    [
        # diffusers' pipelines of these two alone add the shift, whatever a config says.
        (Family.SD3, 0.25),
        (Family.FLUX, 0.25),
        (Family.SD, 0.0),
        (Family.SDXL, 0.0),
        (Family.PIXART, 0.0),
    ],
)
def test_latents_are_shifted_where_diffusers_shifts_them(
    tmp_path: Path, family: Family, shift: float
) -> None:
    decoder = saved(tmp_path, kl(3, latent_channels=16, shift_factor=0.25, scaling_factor=0.3))
    found = latents_of(decoder, family)
    assert (found.channels, found.pixels) == (16, 4)
    assert (found.scaling_factor, found.shift_factor) == (0.3, shift)


def test_a_config_that_says_nothing_is_read_as_diffusers_reads_it(tmp_path: Path) -> None:
    absent = dict.fromkeys(("latent_channels", "scaling_factor", "shift_factor"), "absent")
    for number, model in enumerate((kl(4), tiny(4))):
        folder = tmp_path / str(number)
        found = latents_of(saved(folder, model, **absent), Family.SD3)
        usual: Any = type(model)().config
        assert found.channels == usual.latent_channels
        assert found.scaling_factor == usual.scaling_factor
        assert found.shift_factor == (usual.shift_factor or 0.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scaling_factor", 0),
        ("scaling_factor", -1.0),
        ("scaling_factor", float("nan")),
        ("scaling_factor", "a lot"),
        ("shift_factor", float("inf")),
        ("latent_channels", 0),
        ("block_out_channels", []),
        ("block_out_channels", 3),
    ],
)
def test_numbers_that_make_no_sense_are_refused(tmp_path: Path, key: str, value: Any) -> None:
    decoder = saved(tmp_path, kl(3), **{key: value})
    with pytest.raises(SourceError, match=r"config\.json") as caught:
        latents_of(decoder, Family.FLUX)
    assert "\n" not in str(caught.value)


def test_the_narrowest_block_of_a_decoder_is_that_of_its_config() -> None:
    assert least_channels("AutoencoderKL", {"block_out_channels": [128, 256, 512]}) == 128
    assert least_channels("AutoencoderDC", {"decoder_block_out_channels": [64, 32]}) == 32
    video = video_decoder()
    narrowest = least_channels("AutoencoderKLQwenImage", dict(video.config))
    assert narrowest == video.decoder.conv_out.weight.shape[1]
    assert least_channels("AutoencoderKLQwenImage", {}) == 96
    assert least_channels("AutoencoderKL", {}) == 1
