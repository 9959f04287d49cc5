from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sdpack.export.single_file.conversion import (
    PROJECTION,
    UnfitError,
    convert_model,
    model_shapes,
    write_model,
    write_text_encoder,
)
from sdpack.export.single_file.layout import folder_layout

from tests.sdpack.export.single_file import originals
from tests.sdpack.export.single_file.tiny_models import Tiny

Model = Callable[[str], Tiny]
CLIP_L = "text_encoders.clip_l.transformer."


def test_a_vae_under_diffusers_names_stays_as_it_is(tiny: Model) -> None:
    folder = tiny("sd1").folder / "vae"
    tensors = originals.weights(folder)
    found = convert_model("AutoencoderKL", originals.config_of(folder), tensors)
    assert found == tensors


def test_missing_and_left_over_tensors_are_named(tiny: Model) -> None:
    folder = tiny("sd1").folder / "vae"
    config = originals.config_of(folder)
    tensors = originals.vae(originals.weights(folder), config)
    without = {name: tensor for name, tensor in tensors.items() if "decoder.conv_in" not in name}
    with pytest.raises(UnfitError, match=r"it has no decoder.conv_in.bias and 1 more"):
        convert_model("AutoencoderKL", config, without)
    smaller = {**config, "use_post_quant_conv": False}
    with pytest.raises(UnfitError, match=r"its post_quant_conv.bias and 1 more would be left over"):
        convert_model("AutoencoderKL", smaller, tensors)


def test_what_diffusers_cannot_convert_is_one_line(tiny: Model) -> None:
    config = originals.config_of(tiny("flux").folder / "transformer")
    with pytest.raises(UnfitError, match=r"diffusers cannot convert it \(") as caught:
        convert_model("FluxTransformer2DModel", config, {"double_blocks.0.a": torch.ones(1)})
    assert "\n" not in str(caught.value)


def test_weights_are_written_and_read_back(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    write_model(tmp_path / "unet", {"a": tensor.T})
    assert torch.equal(originals.weights(tmp_path / "unet")["a"], tensor.T)


def test_shapes_of_a_config_are_those_of_its_model(tiny: Model) -> None:
    folder = tiny("sd1").folder / "unet"
    shapes = {name: tuple(tensor.shape) for name, tensor in originals.weights(folder).items()}
    assert model_shapes("UNet2DConditionModel", originals.config_of(folder)) == shapes


def first_clip(tiny: Tiny, folder: Path, tensors: originals.Tensors) -> originals.Tensors:
    layout = folder_layout(tiny.configs)
    layout.write(folder)
    write_text_encoder(folder, layout, "text_encoder", tensors)
    return originals.weights(folder / "text_encoder")


def test_a_projection_is_the_files_own_or_else_the_identity(tiny: Model, tmp_path: Path) -> None:
    model = tiny("sd3")
    tensors = originals.weights(model.folder / "text_encoder")
    whole = originals.prefixed(CLIP_L, originals.clip(tensors))
    own = first_clip(model, tmp_path / "own", whole)
    assert torch.equal(own["text_projection.weight"], tensors["text_projection.weight"])
    whole.pop(PROJECTION)
    without = first_clip(model, tmp_path / "without", whole)
    assert torch.equal(without["text_projection.weight"], torch.eye(16))


def test_a_text_encoder_keeps_its_type(tiny: Model, tmp_path: Path) -> None:
    model = tiny("sd3")
    tensors = originals.weights(model.folder / "text_encoder")
    half = {name: tensor.half() for name, tensor in originals.clip(tensors).items()}
    found = first_clip(model, tmp_path, originals.prefixed(CLIP_L, half))
    assert {tensor.dtype for tensor in found.values()} == {torch.float16}


def test_a_text_encoder_that_lacks_a_tensor_is_refused(tiny: Model, tmp_path: Path) -> None:
    model = tiny("sd3")
    clip = originals.clip(originals.weights(model.folder / "text_encoder"))
    clip.pop("text_model.final_layer_norm.bias")
    with pytest.raises(UnfitError, match=r"its text_encoder has no .*final_layer_norm.bias"):
        first_clip(model, tmp_path, originals.prefixed(CLIP_L, clip))
    t5 = originals.weights(model.folder / "text_encoder_3")
    t5.pop("encoder.final_layer_norm.weight")
    layout = folder_layout(model.configs)
    tensors = originals.prefixed("text_encoders.t5xxl.transformer.", t5)
    with pytest.raises(UnfitError, match=r"it has no encoder.final_layer_norm.weight"):
        write_text_encoder(tmp_path, layout, "text_encoder_3", tensors)
