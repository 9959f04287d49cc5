from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sdpack.errors import SourceError
from sdpack.export.single_file.content import OriginalFile
from sdpack.export.single_file.layout import base_layout
from sdpack.export.single_file.layout_choice import (
    AS_FOLDER,
    GIVEN,
    TOLD,
    ChosenLayout,
    choose_layout,
    with_prediction,
)
from sdpack.export.single_file.options import FileOptions, Prediction

from tests.sdpack.export.single_file import originals
from tests.sdpack.export.single_file.tiny_models import Tiny

Model = Callable[[str], Tiny]


def plain(shapes: dict[str, tuple[int, ...]] | None = None) -> OriginalFile:
    file = OriginalFile(Path("mine.safetensors"))
    file.__dict__["shapes"] = shapes or {}
    return file


def test_the_configs_of_a_folder_are_used_if_the_denoiser_fits_them(tiny: Model) -> None:
    chosen = choose_layout(OriginalFile(tiny("sd1").file), FileOptions(folder=tiny("sd1").configs))
    assert chosen.how == AS_FOLDER
    assert chosen.layout.configs["unet"]["cross_attention_dim"] == 16


def test_a_denoiser_that_fits_no_layout_is_refused_with_the_reason(tiny: Model) -> None:
    file = OriginalFile(tiny("sd1").file)
    with pytest.raises(SourceError, match=r"the keys of .*sd1.safetensors tell none of sd15, sd21"):
        choose_layout(file, FileOptions())
    with pytest.raises(
        SourceError, match=r"does not fit sd15: it has no .* say --base, or give --with"
    ):
        choose_layout(file, FileOptions(base="sd15"))
    with pytest.raises(SourceError, match=r"does not fit .*configs: "):
        choose_layout(file, FileOptions(folder=tiny("sdxl").configs))


def test_a_mismatch_names_the_tensor_and_both_shapes(tiny: Model, tmp_path: Path) -> None:
    tensors = originals.stable_diffusion_1(tiny("sd1").folder)
    tensors["model.diffusion_model.out.2.bias"] = torch.zeros(5)
    path = originals.write(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(SourceError, match=r"its conv_out.bias is 5, not 4"):
        choose_layout(OriginalFile(path), FileOptions(folder=tiny("sd1").configs))


@pytest.mark.parametrize(
    ("base", "how", "keys", "asked", "setting", "words"),
    [
        ("sdxl", TOLD, {}, None, "epsilon", "epsilon (assumed: say --prediction v if it is wrong)"),
        ("sdxl", TOLD, {}, Prediction.V, "v_prediction", "v (as given)"),
        ("sdxl", TOLD, {"v_pred": (0,)}, None, "v_prediction", "v (from its keys)"),
        ("sdxl", GIVEN, {}, None, "epsilon", "epsilon (its base's)"),
        ("sd21", TOLD, {}, None, "v_prediction", "v (assumed: say --prediction epsilon if it"),
        ("sd21-base", GIVEN, {}, None, "epsilon", "epsilon (its base's)"),
        ("sd21", GIVEN, {"v_pred": (0,)}, Prediction.EPSILON, "epsilon", "epsilon (as given)"),
    ],
)
def test_a_prediction_is_given_told_or_assumed(
    base: str,
    how: str,
    keys: dict[str, tuple[int, ...]],
    asked: Prediction | None,
    setting: str,
    words: str,
) -> None:
    chosen = ChosenLayout(base_layout(base), how)
    layout, said = with_prediction(plain(keys), chosen, asked)
    assert layout.configs["scheduler"]["prediction_type"] == setting
    assert words in said


def test_a_schedule_that_ends_in_noise_is_told_by_a_key() -> None:
    chosen = ChosenLayout(base_layout("sdxl"), TOLD)
    layout, _ = with_prediction(plain({"v_pred": (0,), "ztsnr": (0,)}), chosen, None)
    scheduler = layout.configs["scheduler"]
    assert scheduler["rescale_betas_zero_snr"] is True
    assert scheduler["timestep_spacing"] == "trailing"
    unmarked, _ = with_prediction(plain(), chosen, None)
    assert "rescale_betas_zero_snr" not in unmarked.configs["scheduler"]


def test_flow_models_have_only_one_prediction() -> None:
    chosen = ChosenLayout(base_layout("flux-dev"), TOLD)
    assert with_prediction(plain(), chosen, None) == (chosen.layout, "")
    with pytest.raises(SourceError, match="always predict a flow; leave out --prediction"):
        with_prediction(plain(), chosen, Prediction.V)


def test_a_base_with_the_keys_of_another_says_so() -> None:
    assert "say --base sd21-base" in str(ChosenLayout(base_layout("sd21"), TOLD))
    assert str(ChosenLayout(base_layout("sd21"), GIVEN)) == "base sd21, as given"
