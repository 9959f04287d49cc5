"""Components of a pipeline that sdpack does not use: told, or refused where pictures need them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sdpack.errors import SdpackError
from sdpack.export.adopt import adopt

from tests.sdpack.export.conftest import changed


def test_components_that_pictures_do_not_depend_on_are_told(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models("sd"), tmp_path / "m"))
    checker = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    encoder = ["transformers", "CLIPVisionModelWithProjection"]
    absent = [None, None]
    index = {"safety_checker": checker, "image_encoder": encoder, "controlnet": absent}
    changed(folder, "model_index.json", **index)
    said: list[str] = []
    adopt(str(folder), warn=said.append)
    where = folder / "model_index.json"
    assert said == [
        f"{where}: safety_checker is left out: images are not checked",
        f"{where}: image_encoder is left out: IP-Adapters are not supported",
    ]
    other = "StableDiffusionImg2ImgPipeline"
    index = {"safety_checker": absent, "image_encoder": absent}
    changed(folder, "model_index.json", _class_name=other, **index)
    said.clear()
    adopt(str(folder), warn=said.append)
    assert said == [f"{where}: {other}: only text-to-image is supported"]


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (
            {"controlnet": ["diffusers", "ControlNetModel"]},
            r"needs controlnet \(a ControlNet, ControlNetModel\), which sdpack does not support",
        ),
        (
            {
                "_class_name": "StableUnCLIPImg2ImgPipeline",
                "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
                "image_normalizer": ["stable_diffusion", "StableUnCLIPImageNormalizer"],
            },
            r"needs image_encoder \(an image encoder, CLIP.*\), image_normalizer \(the norm",
        ),
        ({"prior": ["diffusers", "PriorTransformer"]}, r"needs prior \(a prior"),
        ({"unet_2": ["diffusers", "UNet2DConditionModel"]}, r"needs unet_2 \(a second denoiser"),
        ({"movq": ["diffusers", "VQModel"]}, r"needs movq \(a decoder of .* of a family that"),
        ({"ip_adapter": ["x", "IPAdapter"]}, r"\(an IP-Adapter, IPAdapter\).* pipeline without it"),
        ({"bert": ["latent_diffusion", "LDMBertModel"]}, r"needs bert \(a text encoder of another"),
        ({"text_encoder": [None, None]}, "names no text encoder, and sdpack draws from texts"),
        ({"wonder": ["mine", "Wonder"]}, r"needs wonder \(an unknown component, Won"),
        ({"requires_aesthetics_score": True}, "so this is a refiner"),
    ],
)
def test_components_that_pictures_depend_on_are_refused(
    models: Callable[[str], Path], tmp_path: Path, index: dict[str, Any], said: str
) -> None:
    folder = Path(shutil.copytree(models("sd"), tmp_path / "m"))
    changed(folder, "model_index.json", **index)
    with pytest.raises(SdpackError, match=said):
        adopt(str(folder))
