from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sdpack.domain.placement import Role
from sdpack.errors import CatalogError, SourceError
from sdpack.export.adopt import adopt
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.fitting import check_parts_fit

from tests.e2e import families

ROLES = (Role.TEXT_ENCODER, Role.TEXT_ENCODER_2, Role.TEXT_ENCODER_3)


def parts_of(folder: Path) -> dict[str, Any]:
    """Arguments of `check_parts_fit` for a pipeline's folder."""
    encoders = {r: Checkpoint(folder / r.value) for r in ROLES if (folder / r.value).is_dir()}
    denoiser = next(folder / n for n in ("unet", "transformer") if (folder / n).is_dir())
    return {
        "encoders": encoders,
        "denoiser": Checkpoint(denoiser),
        "decoder": Checkpoint(folder / "vae"),
    }


def test_a_scale_for_each_channel_is_told(models: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models("sdxl"), tmp_path / "m"))
    path = folder / "vae" / "config.json"
    more = {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    with pytest.raises(CatalogError, match="latents_mean and latents_std"):
        adopt(str(folder))


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_parts_of_a_pipeline_fit(models: Callable[[str], Path], family: str) -> None:
    check_parts_fit("here", **parts_of(models(family)))


@pytest.mark.parametrize(
    ("family", "role", "other", "said"),
    [
        ("sd", Role.TEXT_ENCODER, ("pixart", "text_encoder"), "here: unet attends to .* width 16"),
        ("sdxl", Role.TEXT_ENCODER_2, ("sd", "text_encoder"), r"\(text encoder 16, text encoder 2"),
        ("sd", Role.TEXT_ENCODER_2, ("sd", "text_encoder"), "takes 1 text encoders, but .* 2;"),
        ("flux dev", Role.TEXT_ENCODER, ("sdxl", "text_encoder_2"), "width 16, but its .* give 24"),
    ],
)
def test_a_text_encoder_of_another_model_is_named(
    models: Callable[[str], Path], family: str, role: Role, other: tuple[str, str], said: str
) -> None:
    parts = parts_of(models(family))
    parts["encoders"][role] = Checkpoint(models(other[0]) / other[1])
    with pytest.raises(CatalogError, match=said):
        check_parts_fit("here", **parts)


def test_a_bridge_changes_states_to_any_width(models: Callable[[str], Path]) -> None:
    parts = parts_of(models("sd"))
    parts["encoders"][Role.TEXT_ENCODER] = Checkpoint(models("pixart") / "text_encoder")
    check_parts_fit("here", **parts, bridged={Role.TEXT_ENCODER})


def test_a_decoder_of_other_latents_is_named(models: Callable[[str], Path]) -> None:
    parts = parts_of(models("sd")) | {"decoder": Checkpoint(models("sd3") / "vae")}
    with pytest.raises(CatalogError, match="unet makes latents of 4 channels, but vae decodes 16"):
        check_parts_fit("here", **parts)


def test_a_text_encoder_without_a_width_is_refused(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models("sd") / "text_encoder", tmp_path / "e"))
    config = json.loads((folder / "config.json").read_text())
    del config["hidden_size"]
    (folder / "config.json").write_text(json.dumps(config))
    parts = parts_of(models("sd"))
    parts["encoders"][Role.TEXT_ENCODER] = Checkpoint(folder)
    with pytest.raises(SourceError, match="its config has no width"):
        check_parts_fit("here", **parts)
