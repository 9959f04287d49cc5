"""Denoisers that need more than a text are told by key, value and file, before any export."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sdpack.errors import SdpackError
from sdpack.export.adopt import adopt
from sdpack.export.denoiser_config import EDITS, check_denoiser

from tests.sdpack.export.conftest import changed


@pytest.mark.parametrize(
    ("channels", "kind"),
    [
        (9, "for inpainting"),
        (8, "for instruct-pix2pix"),
        (5, "for depth2img"),
        (7, "for upscaling"),
        (6, "of an unknown kind"),
    ],
)
def test_a_unet_that_takes_a_picture_too_is_told_by_its_kind(
    models: Callable[[str], Path], tmp_path: Path, channels: int, kind: str
) -> None:
    folder = Path(shutil.copytree(models("sd"), tmp_path / "m"))
    changed(folder, "unet/config.json", in_channels=channels)
    said = rf"unet/config\.json: in_channels is {channels} and out_channels is 4: a UNet {kind}"
    with pytest.raises(SdpackError, match=rf"{said}.*sdpack does not support it"):
        adopt(str(folder))


def test_a_transformer_that_takes_a_picture_too_is_told(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models("flux dev"), tmp_path / "m"))
    changed(folder, "transformer/config.json", in_channels=32, out_channels=16)
    said = r"in_channels is 32 and out_channels is 16: a transformer"
    with pytest.raises(SdpackError, match=said):
        adopt(str(folder))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_embed_type", "timestep"),
        ("num_class_embeds", 10),
        ("addition_embed_type", "text_image"),
        ("encoder_hid_dim_type", "ip_image_proj"),
        ("dual_cross_attention", True),
        ("attention_type", "gated"),
    ],
)
def test_a_unet_that_needs_more_than_a_text_is_refused_before_the_export(
    models: Callable[[str], Path], tmp_path: Path, key: str, value: object
) -> None:
    folder = Path(shutil.copytree(models("sd"), tmp_path / "m"))
    changed(folder, "unet/config.json", **{key: value})
    with pytest.raises(SdpackError, match=rf"unet/config\.json: {key} is {value!r}, so the UNet"):
        adopt(str(folder))


def test_a_null_is_what_is_usual() -> None:
    check_denoiser("UNet2DConditionModel", {"in_channels": None, "out_channels": 4}, Path("c"))


@pytest.mark.parametrize("key", sorted(EDITS))
def test_a_qwen_image_that_edits_or_layers_is_told_by_its_key(key: str) -> None:
    config = {"in_channels": 64, "out_channels": 16}
    check_denoiser("QwenImageTransformer2DModel", config, Path("config.json"))
    with pytest.raises(SdpackError, match=rf"config\.json: {key} is True: a transformer that"):
        check_denoiser("QwenImageTransformer2DModel", {**config, key: True}, Path("config.json"))
