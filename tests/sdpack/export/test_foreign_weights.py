"""Files of weights that people have beside a pipeline, or in place of a part's weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sdpack.errors import SdpackError, SourceError
from sdpack.export.adopt import adopt
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.foreign_weights import recognized

WEIGHTS = "diffusion_pytorch_model.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
LDM_VAE = ("down_blocks", "down"), ("up_blocks", "up"), ("mid_block.attentions.0", "mid.attn_1")


@pytest.fixture
def model(models: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(models("sd"), tmp_path / "m"))


def saved(path: Path, *keys: str, shape: tuple[int, ...] = (2, 2, 2)) -> Path:
    save_file({key: torch.zeros(shape) for key in keys}, path)
    return path


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (("lora_unet_x.hada_w1_a", "lora_unet_x.alpha"), "a LoHa"),
        (("lycoris_x.lokr_w1", "lycoris_x.lokr_w2"), "a LoKr"),
        (("lora_unet_x.lora_down.weight", "lora_unet_x.lora_up.weight"), "a LoRA"),
        (("unet.x.lora_A.weight",), "a LoRA"),
        (("control_model.input_blocks.0.0.weight",), "a ControlNet"),
        (("controlnet_cond_embedding.conv_in.weight",), "a ControlNet"),
        (("image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"), "an IP-Adapter"),
        (("model.diffusion_model.out.2.bias", "first_stage_model.x"), "a model in the original"),
        (("first_stage_model.decoder.conv_in.bias",), "a VAE in the original"),
        (("encoder.conv_in.bias", "decoder.mid.attn_1.q.weight"), "a VAE in the original"),
        (("double_blocks.0.img_attn.qkv.weight",), "a denoiser in the original"),
        (("x.weight", "x.weight.absmax"), "weights quantized by bitsandbytes"),
    ],
)
def test_a_file_is_recognized_by_its_keys(tmp_path: Path, keys: tuple[str, ...], kind: str) -> None:
    found = recognized(saved(tmp_path / "x.safetensors", *keys))
    assert found is not None
    assert found.kind.startswith(kind)
    assert found.remedy


@pytest.mark.parametrize(
    ("keys", "shape", "kind"),
    [
        (("<my-style>",), (3, 16), "embedding of 3 vectors"),
        (("<my-style>",), (16,), "embedding of 1 vector"),
        (("emb_params",), (1, 16), "embedding of 1 vector"),
        (("clip_g", "clip_l"), (2, 16), "embedding of 2 vectors"),
    ],
)
def test_an_embedding_is_recognized_with_its_vectors(
    tmp_path: Path, keys: tuple[str, ...], shape: tuple[int, ...], kind: str
) -> None:
    found = recognized(saved(tmp_path / "x.safetensors", *keys, shape=shape))
    assert found is not None
    assert found.kind.endswith(kind)
    assert "load_textual_inversion" in found.remedy


def test_weights_of_diffusers_and_transformers_are_of_no_such_kind(model: Path) -> None:
    parts = [model / "unet" / WEIGHTS, model / "vae" / WEIGHTS]
    parts.append(model / "text_encoder" / "model.safetensors")
    assert [recognized(path) for path in parts] == [None] * 3


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unet-Q4_K_S.gguf", "GGUF weights, which are quantized already"),
        ("diffusion_flax_model.msgpack", "weights for Flax"),
        ("model.onnx", "an ONNX graph"),
        ("openvino_model.bin", "weights for OpenVINO"),
        ("tf_model.h5", "weights for TensorFlow"),
        ("mine.ckpt", r"only as a pickle \(mine.ckpt\).* from_single_file"),
        ("diffusion_pytorch_model.bin", "only as a pickle .*`sdpack catalog convert`"),
    ],
)
def test_a_part_with_other_weights_says_what_they_are(model: Path, name: str, said: str) -> None:
    (model / "unet" / WEIGHTS).rename(model / "unet" / name)
    with pytest.raises(SourceError, match=said) as caught:
        adopt(str(model))
    assert str(model / "unet") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_vae_of_the_original_layout_is_refused_before_it_is_loaded(model: Path) -> None:
    """It has the right name, but other keys; a file of another name is recognized as well."""
    path = model / "vae" / WEIGHTS
    tensors = load_file(path)
    for name, original in LDM_VAE:
        tensors = {key.replace(name, original): tensor for key, tensor in tensors.items()}
    save_file(tensors, path)
    with pytest.raises(SourceError, match=r"vae holds a VAE in the original layout: convert it"):
        adopt(str(model))
    path.rename(path.with_name("vae-ft-mse.safetensors"))
    with pytest.raises(SourceError, match=r"vae holds vae-ft-mse.safetensors, a VAE in the origi"):
        adopt(str(model))


def test_a_pointer_of_git_lfs_is_not_called_damaged(model: Path) -> None:
    (model / "unet" / WEIGHTS).write_text(POINTER)
    with pytest.raises(SourceError, match=r"unet/diff.* is a pointer of Git LFS.*`git lfs pull`"):
        adopt(str(model))


def test_quantized_weights_are_refused_by_their_config(model: Path) -> None:
    config = model / "unet" / "config.json"
    values = json.loads(config.read_text())
    quantized = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    config.write_text(json.dumps({**values, **quantized}))
    with pytest.raises(SourceError, match=r"unet/config.json: its weights are quantized \(bitsa"):
        adopt(str(model))


def test_a_part_that_is_missing_is_named_with_what_is_there(model: Path) -> None:
    (model / "unet" / "config.json").unlink()
    with pytest.raises(SourceError, match=rf"unet has no config.json; it holds {WEIGHTS}; rest"):
        adopt(str(model))
    shutil.rmtree(model / "unet")
    (model / "unet-Q8_0.gguf").write_bytes(b"GGUF")
    said = r"there is no folder .*/unet; .*/m holds unet-Q8_0.gguf \(GGUF weights, which are"
    with pytest.raises(SourceError, match=said):
        adopt(str(model))


def test_what_lies_beside_a_pipeline_is_told(model: Path) -> None:
    saved(model / "style.safetensors", "<style>", shape=(4, 16))
    saved(model / "lora.safetensors", "a.lora_down.weight", "a.lora_up.weight")
    (model / "v1-5-pruned.ckpt").write_bytes(b"")
    (model / "controlnet").mkdir()
    saved(model / "controlnet" / "canny.safetensors", "control_model.x")
    (model / "vision").mkdir()
    (model / "vision" / "config.json").write_text('{"architectures": ["CLIPVisionModel"]}')
    said: list[str] = []
    adopt(str(model), warn=said.append)
    told = {line.split(" is left out: ")[0].removeprefix(f"{model}/"): line for line in said}
    assert "a textual inversion embedding of 4 vectors: add it" in told["style.safetensors"]
    assert "a LoRA: list it under loras in a catalog" in told["lora.safetensors"]
    assert "only in the folders of the pipeline's components" in told["v1-5-pruned.ckpt"]
    assert "a ControlNet: sdpack draws from texts alone" in told["controlnet/canny.safetensors"]
    assert any("vision/ (an image encoder, CLIPVisionModel), which is left out" in x for x in said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("learned_embeds.bin", r"holds learned_embeds.bin \(a textual inversion embedding in a pi"),
        ("x.gguf", r"the folder holds x.gguf \(GGUF weights"),
        ("x.safetensors", r"the folder holds x.safetensors; give the folder of a diffusers pipel"),
    ],
)
def test_a_folder_that_is_no_pipeline_says_what_it_holds(
    tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(SdpackError, match=said):
        adopt(str(tmp_path))


def test_one_part_given_as_a_model_is_named(model: Path) -> None:
    with pytest.raises(SdpackError, match=r"single model \(a VAE, AutoencoderKL\), not a pipeline"):
        adopt(str(model / "vae"))


def test_checks_need_only_headers(model: Path) -> None:
    Checkpoint(model / "vae").check_readable()
