from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sdpack.errors import SourceError
from sdpack.export.checkpoint import Checkpoint

from tests.e2e.language_families import vision_language_model

ZOO = Path(__file__).parents[3] / "zoo" / "parts"


@pytest.mark.parametrize("part", ["text_encoder/s", "denoiser/s", "decoder/kl", "decoder/tiny"])
def test_parameters_are_counted_without_loading(part: str) -> None:
    checkpoint = Checkpoint(ZOO / part)
    model = checkpoint.load()
    encodes = ("encoder.", "quant_conv.") if part.startswith("decoder") else ()
    wanted = sum(p.numel() for n, p in model.named_parameters() if not n.startswith(encodes))
    assert checkpoint.parameters == wanted
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training


def damaged(folder: Path, damage: str) -> Checkpoint:
    target = folder / "part"
    shutil.copytree(ZOO / "decoder" / "tiny", target)
    weights = target / "diffusion_pytorch_model.safetensors"
    config = target / "config.json"
    if damage == "no weights":
        weights.unlink()
    elif damage == "cut short":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "no config":
        config.unlink()
    elif damage == "no JSON":
        config.write_text("{")
    elif damage == "other class":
        config.write_text(json.dumps({"_class_name": "VQModel", "_diffusers_version": "0"}))
    elif damage == "other shapes":
        values = json.loads(config.read_text())
        config.write_text(json.dumps({**values, "latent_channels": 4}))
    return Checkpoint(target)


@pytest.mark.parametrize(
    "damage", ["no weights", "cut short", "no config", "no JSON", "other class", "other shapes"]
)
def test_a_damaged_checkpoint_is_named_in_one_line(tmp_path: Path, damage: str) -> None:
    checkpoint = damaged(tmp_path, damage)
    with pytest.raises(SourceError) as caught:
        checkpoint.load()
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_copies_beside_the_weights_are_not_counted(tmp_path: Path) -> None:
    checkpoint = damaged(tmp_path, "none")
    weights = checkpoint.folder / "diffusion_pytorch_model.safetensors"
    shutil.copyfile(weights, checkpoint.folder / "diffusion_pytorch_model.fp16.safetensors")
    assert checkpoint.weight_files == [weights]


def test_shards_are_those_the_index_names(tmp_path: Path) -> None:
    model: Any = Checkpoint(ZOO / "denoiser" / "s").load()
    model.save_pretrained(tmp_path / "whole", max_shard_size="1MB")
    sharded = Checkpoint(tmp_path / "whole")
    assert len(sharded.weight_files) > 1
    assert sharded.parameters == Checkpoint(ZOO / "denoiser" / "s").parameters
    sharded.weight_files[0].unlink()
    with pytest.raises(SourceError, match="is missing"):
        _ = Checkpoint(tmp_path / "whole").weight_files


def test_content_follows_the_weights(tmp_path: Path) -> None:
    one = damaged(tmp_path / "a", "none")
    two = damaged(tmp_path / "b", "none")
    assert one.content == two.content
    weights = two.weight_files[0]
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert Checkpoint(two.folder).content != one.content


def test_of_a_language_model_only_its_encoder_counts_and_is_exported(tmp_path: Path) -> None:
    from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    whole = Checkpoint(tmp_path)
    assert whole.class_name == "T5EncoderModel"
    model = whole.load()
    assert isinstance(model, T5EncoderModel)
    assert whole.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_are_read_as_the_class_would_read_them(tmp_path: Path, dtype: torch.dtype) -> None:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    AutoencoderKL(norm_num_groups=8, block_out_channels=(8,)).to(dtype).save_pretrained(tmp_path)
    wanted = AutoencoderKL.from_pretrained(tmp_path, torch_dtype=torch.float32).state_dict()
    model = Checkpoint(tmp_path)._model_files.read_in_parts()
    assert model is not None
    assert not model.training or not Checkpoint(tmp_path).load().training
    found = model.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}


def test_weights_of_other_names_are_left_to_the_class(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL
    from safetensors.torch import load_file, save_file

    AutoencoderKL(norm_num_groups=8, block_out_channels=(8,)).save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    # As diffusers named the attention's matrices before 0.15.
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = {}
    for name, tensor in load_file(path).items():
        for now, before in old.items():
            name = name.replace(f"attentions.0.{now}.", f"attentions.0.{before}.")
        weights[name] = tensor
    save_file(weights, path)
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint._model_files.read_in_parts() is None
    assert "decoder.mid_block.attentions.0.to_q.weight" in checkpoint.load().state_dict()


def bert(folder: Path, heads: bool = False) -> Path:
    from transformers import BertConfig, BertForMaskedLM, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    config = BertConfig(vocab_size=64, num_hidden_layers=2, **sizes)
    (BertForMaskedLM if heads else BertModel)(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["transformers", "diffusers"])
def test_a_tensor_that_is_not_there_is_named(tmp_path: Path, kind: str) -> None:
    from safetensors.torch import load_file, save_file

    if kind == "transformers":
        path, name = bert(tmp_path) / "model.safetensors", "encoder.layer.1.output.dense.weight"
    else:
        path = damaged(tmp_path, "none").folder / "diffusion_pytorch_model.safetensors"
        name = "decoder.layers.0.weight"
    weights = load_file(path)
    del weights[name]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(SourceError, match=f"holds no tensor {name}, which"):
        Checkpoint(path.parent).load()


def test_a_language_model_has_no_pooler_and_needs_none(tmp_path: Path) -> None:
    assert Checkpoint(bert(tmp_path, heads=True)).load()


@pytest.mark.parametrize("variant", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("shard_size", ["5GB", "10KB"])
def test_a_copy_in_another_type_is_taken_where_there_is_no_other(
    tmp_path: Path, shard_size: str, variant: str
) -> None:
    from transformers import BertModel

    whole = bert(tmp_path / "whole")
    types = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
    model = BertModel.from_pretrained(whole).to(types[variant])
    model.save_pretrained(tmp_path / "half", variant=variant, max_shard_size=shard_size)
    wanted = model.float().state_dict()
    found = Checkpoint(tmp_path / "half")
    assert (len(found.weight_files) > 1) == (shard_size == "10KB")
    loaded = found.load().state_dict()
    assert all(torch.equal(loaded[name], wanted[name]) for name in wanted)


def test_a_config_without_diffusers_version_is_read_by_its_class(tmp_path: Path) -> None:
    """Its class is of one library, whatever the config's other keys are."""
    checkpoint = damaged(tmp_path, "none")
    before = checkpoint.load().state_dict()
    config = checkpoint.folder / "config.json"
    values = json.loads(config.read_text())
    del values["_diffusers_version"]
    config.write_text(json.dumps(values))
    after = Checkpoint(checkpoint.folder).load().state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("shard_size", ["5GB", "200KB"])
def test_a_diffusers_model_in_bf16_alone_is_read(tmp_path: Path, shard_size: str) -> None:
    whole: Any = Checkpoint(ZOO / "decoder" / "tiny").load().to(torch.bfloat16)
    whole.save_pretrained(tmp_path, variant="bf16", max_shard_size=shard_size)
    checkpoint = Checkpoint(tmp_path)
    assert (len(checkpoint.weight_files) > 1) == (shard_size == "200KB")
    wanted, loaded = whole.float().state_dict(), checkpoint.load().state_dict()
    assert all(torch.equal(loaded[name], wanted[name]) for name in wanted)
    assert checkpoint.parameters == Checkpoint(ZOO / "decoder" / "tiny").parameters


@pytest.mark.parametrize(
    "name",
    [
        "diffusion_pytorch_model.non_ema.safetensors",
        "diffusion_pytorch_model-00001-of-00002.safetensors",
        "mine.safetensors",
    ],
)
def test_weights_that_are_not_read_are_named(tmp_path: Path, name: str) -> None:
    folder = damaged(tmp_path, "none").folder
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / name)
    with pytest.raises(SourceError, match=f"holds {name}, which is not read: weights must be"):
        _ = Checkpoint(folder).weight_files


def test_weights_of_another_shape_than_the_config_s_are_named(tmp_path: Path) -> None:
    folder = damaged(tmp_path, "none").folder
    path = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if tensors[name].ndim == 4)
    save_file({**tensors, name: tensors[name][:, :1].contiguous()}, path)
    with pytest.raises(SourceError, match=rf"holds {name} of shape .*, but its config describes"):
        Checkpoint(folder).load()


@pytest.mark.parametrize("is_flat", [False, True])
def test_only_the_text_part_of_a_model_that_reads_images_counts_and_is_loaded(
    tmp_path: Path, is_flat: bool
) -> None:
    """Hubs hold configs with the text's keys at the top as well as in a part of their own."""
    model = vision_language_model().eval()
    model.save_pretrained(tmp_path)
    if is_flat:
        path = tmp_path / "config.json"
        config = json.loads(path.read_text())
        text = config.pop("text_config")
        path.write_text(json.dumps({**text, **config}))
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.class_name == "Qwen2_5_VLTextModel"
    assert checkpoint.config["hidden_size"] == model.config.text_config.hidden_size
    text = model.model.language_model
    assert checkpoint.parameters == sum(parameter.numel() for parameter in text.parameters())
    read = dict(checkpoint.read_shapes())
    assert len(read) == len(text.state_dict()) < len(dict(checkpoint.shapes()))
    loaded = checkpoint.load().state_dict()
    assert loaded.keys() == text.state_dict().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in text.state_dict().items())
