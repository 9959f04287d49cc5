"""Tiny pipelines in the layouts of single files: the inverse of what diffusers converts.

Written from the original programs' structure, and not from diffusers' tables, so that the two check
each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]
Config = Mapping[str, Any]
DENOISER = "model.diffusion_model."
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def weights(folder: Path) -> Tensors:
    """A component's tensors."""
    (path,) = folder.glob("*.safetensors")
    return load_file(path)


def config_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text()))


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def unet(tensors: Tensors, config: Config) -> Tensors:
    """A UNet as Stable Diffusion 1, 2 and XL store it."""
    layers, found = config["layers_per_block"], Tensors()
    for name, tensor in tensors.items():
        stem, _, kind = name.rpartition(".")
        found[f"{ENDS.get(stem) or unet_name(stem, layers)}.{kind}"] = tensor
    return numbered(found)


def unet_name(stem: str, layers: int) -> str:
    where, rest = re.fullmatch(r"(down_blocks\.\d+|mid_block|up_blocks\.\d+)\.(.*)", stem).groups()  # type: ignore[union-attr]
    side, _, level = where.partition("_blocks.")
    kind, number, inner = rest.split(".", 2)
    if where == "mid_block":
        place = 2 * int(number) + (kind == "attentions")
        return f"middle_block.{place}.{RESNET.get(inner, inner)}"
    if kind == "downsamplers":
        return f"input_blocks.{(int(level) + 1) * (layers + 1)}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{int(level) * (layers + 1) + layers}.UP.conv"
    first, each = (1, layers + 1) if side == "down" else (0, layers + 1)
    block = first + int(level) * each + int(number)
    begin = "input_blocks" if side == "down" else "output_blocks"
    return f"{begin}.{block}.{int(kind == 'attentions')}.{RESNET.get(inner, inner)}"


def numbered(tensors: Tensors) -> Tensors:
    """Number the upsamplers, which follow an attention where there is one."""
    found = {}
    for name, tensor in tensors.items():
        begin = name.partition(".UP.")[0]
        attends = any(other.startswith(f"{begin}.1.") for other in tensors)
        found[name.replace(".UP.", ".2." if attends else ".1.")] = tensor
    return found


def vae(tensors: Tensors, config: Config) -> Tensors:
    """An AutoencoderKL as Stable Diffusion and Flux store it, with attention of convolutions."""
    blocks, found = len(config["block_out_channels"]), Tensors()
    for name, tensor in tensors.items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", new)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = re.sub(
            r"up_blocks\.(\d+)\.(resnets|upsamplers\.0)",
            lambda m: f"up.{blocks - 1 - int(m[1])}.{UP[m[2]]}",
            new,
        )
        if ".attentions.0." in new:
            begin, _, rest = new.partition("mid_block.attentions.0.")
            stem, _, kind = rest.rpartition(".")
            new = f"{begin}mid.attn_1.{VAE_ATTENTION[stem]}.{kind}"
            if kind == "weight" and stem != "group_norm":
                tensor = tensor[:, :, None, None]
        found[new] = tensor.contiguous()
    return found


UP = {"resnets": "block", "upsamplers.0": "upsample"}


def clip(tensors: Tensors) -> Tensors:
    """A CLIP under the names of transformers' older versions, as single files have them."""
    found = {}
    for name, tensor in tensors.items():
        plain = name.removeprefix("text_model.")
        found[plain if plain.startswith("text_projection") else f"text_model.{plain}"] = tensor
    return found


def open_clip(tensors: Tensors) -> Tensors:
    """A CLIP as OpenCLIP stores it: queries, keys and values in one tensor."""
    found, joined = Tensors(), dict[str, dict[str, Tensor]]()
    for name, tensor in clip(tensors).items():
        plain = name.removeprefix("text_model.")
        if plain == "text_projection.weight":
            found["text_projection"] = tensor.T.contiguous()
        elif plain.startswith("embeddings.position"):
            found["positional_embedding"] = tensor
        elif plain.startswith("embeddings.token"):
            found["token_embedding.weight"] = tensor
        elif plain.startswith("final_layer_norm"):
            found[plain.replace("final_layer_norm", "ln_final")] = tensor
        elif match := re.fullmatch(
            r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)", plain
        ):
            key = f"transformer.resblocks.{match[1]}.attn.in_proj_{match[3]}"
            joined.setdefault(key, {})[match[2]] = tensor
        else:
            new = plain.replace("encoder.layers", "transformer.resblocks")
            for one, other in OPEN_CLIP.items():
                new = new.replace(one, other)
            found[new] = tensor
    return found | {key: torch.cat([each[x] for x in "qkv"]) for key, each in joined.items()}


def swapped(tensor: Tensor) -> Tensor:
    """Swap the halves: shift and scale."""
    return torch.cat(tensor.chunk(2)[::-1])


def take(tensors: Tensors, names: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    """Yield weights and biases under other names."""
    for one, other in names.items():
        for kind in ("weight", "bias"):
            if f"{one}.{kind}" in tensors:
                yield f"{other}.{kind}", tensors.pop(f"{one}.{kind}")


def joined(tensors: Tensors, stems: list[str], name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield one weight and one bias for several."""
    for kind in ("weight", "bias"):
        if all(f"{stem}.{kind}" in tensors for stem in stems):
            parts = [tensors.pop(f"{stem}.{kind}") for stem in stems]
            yield f"{name}.{kind}", torch.cat(parts)


def sd3_block(tensors: Tensors, number: int, is_last: bool) -> Tensors:
    begin, new = f"transformer_blocks.{number}", f"joint_blocks.{number}"
    found = Tensors()
    for attention, side, letters in (
        ("attn", "x_block.attn", [f"to_{x}" for x in "qkv"]),
        ("attn", "context_block.attn", [f"add_{x}_proj" for x in "qkv"]),
        ("attn2", "x_block.attn2", [f"to_{x}" for x in "qkv"]),
    ):
        stems = [f"{begin}.{attention}.{letter}" for letter in letters]
        found |= dict(joined(tensors, stems, f"{new}.{side}.qkv"))
    names = {
        "attn.norm_q": "x_block.attn.ln_q",
        "attn.norm_k": "x_block.attn.ln_k",
        "attn.norm_added_q": "context_block.attn.ln_q",
        "attn.norm_added_k": "context_block.attn.ln_k",
        "attn2.norm_q": "x_block.attn2.ln_q",
        "attn2.norm_k": "x_block.attn2.ln_k",
        "attn.to_out.0": "x_block.attn.proj",
        "attn.to_add_out": "context_block.attn.proj",
        "attn2.to_out.0": "x_block.attn2.proj",
        "norm1.linear": "x_block.adaLN_modulation.1",
        "norm1_context.linear": "context_block.adaLN_modulation.1",
        "ff.net.0.proj": "x_block.mlp.fc1",
        "ff.net.2": "x_block.mlp.fc2",
        "ff_context.net.0.proj": "context_block.mlp.fc1",
        "ff_context.net.2": "context_block.mlp.fc2",
    }
    named = {f"{begin}.{one}": f"{new}.{other}" for one, other in names.items()}
    found |= dict(take(tensors, named))
    if is_last:
        for kind in ("weight", "bias"):
            key = f"{new}.context_block.adaLN_modulation.1.{kind}"
            found[key] = swapped(found[key])
    return found


def sd3_transformer(tensors: Tensors, config: Config) -> Tensors:
    tensors, blocks = dict(tensors), config["num_layers"]
    found = {"pos_embed": tensors.pop("pos_embed.pos_embed")}
    names = {
        "pos_embed.proj": "x_embedder.proj",
        "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
        "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
        "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
        "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
        "context_embedder": "context_embedder",
        "proj_out": "final_layer.linear",
        "norm_out.linear": "final_layer.adaLN_modulation.1",
    }
    found |= dict(take(tensors, names))
    for number in range(blocks):
        found |= sd3_block(tensors, number, number == blocks - 1)
    assert not tensors
    return swap_final(found)


def swap_final(found: Tensors) -> Tensors:
    keys = [f"final_layer.adaLN_modulation.1.{kind}" for kind in ("weight", "bias")]
    return found | {key: swapped(found[key]) for key in keys}


def flux_double(tensors: Tensors, number: int) -> Tensors:
    begin, new = f"transformer_blocks.{number}", f"double_blocks.{number}"
    found = Tensors()
    for side, letters in (("img", "to_{}"), ("txt", "add_{}_proj")):
        stems = [f"{begin}.attn.{letters.format(x)}" for x in "qkv"]
        found |= dict(joined(tensors, stems, f"{new}.{side}_attn.qkv"))
    names = {
        "norm1.linear": "img_mod.lin",
        "norm1_context.linear": "txt_mod.lin",
        "ff.net.0.proj": "img_mlp.0",
        "ff.net.2": "img_mlp.2",
        "ff_context.net.0.proj": "txt_mlp.0",
        "ff_context.net.2": "txt_mlp.2",
        "attn.to_out.0": "img_attn.proj",
        "attn.to_add_out": "txt_attn.proj",
    }
    found |= dict(take(tensors, {f"{begin}.{a}": f"{new}.{b}" for a, b in names.items()}))
    for one, other in (
        ("norm_q", "img_attn.norm.query_norm"),
        ("norm_k", "img_attn.norm.key_norm"),
        ("norm_added_q", "txt_attn.norm.query_norm"),
        ("norm_added_k", "txt_attn.norm.key_norm"),
    ):
        found[f"{new}.{other}.scale"] = tensors.pop(f"{begin}.attn.{one}.weight")
    return found


def flux_single(tensors: Tensors, number: int) -> Tensors:
    begin, new = f"single_transformer_blocks.{number}", f"single_blocks.{number}"
    stems = [*(f"{begin}.attn.to_{x}" for x in "qkv"), f"{begin}.proj_mlp"]
    found = dict(joined(tensors, stems, f"{new}.linear1"))
    names = {f"{begin}.proj_out": f"{new}.linear2", f"{begin}.norm.linear": f"{new}.modulation.lin"}
    found |= dict(take(tensors, names))
    for one, other in (("norm_q", "query_norm"), ("norm_k", "key_norm")):
        found[f"{new}.norm.{other}.scale"] = tensors.pop(f"{begin}.attn.{one}.weight")
    return found


def flux_transformer(tensors: Tensors, config: Config) -> Tensors:
    tensors = dict(tensors)
    embedders = {"timestep_embedder": "time_in", "text_embedder": "vector_in"}
    embedders["guidance_embedder"] = "guidance_in"
    names = {
        f"time_text_embed.{one}.linear_{n}": f"{other}.{layer}"
        for one, other in embedders.items()
        for n, layer in ((1, "in_layer"), (2, "out_layer"))
    }
    names |= {
        "context_embedder": "txt_in",
        "x_embedder": "img_in",
        "proj_out": "final_layer.linear",
        "norm_out.linear": "final_layer.adaLN_modulation.1",
    }
    found = dict(take(tensors, names))
    for number in range(config["num_layers"]):
        found |= flux_double(tensors, number)
    for number in range(config["num_single_layers"]):
        found |= flux_single(tensors, number)
    assert not tensors
    return swap_final(found)


def denoiser(folder: Path) -> Tensors:
    kinds = {"UNet2D": unet, "SD3": sd3_transformer, "Flux": flux_transformer}
    values = config_of(folder)
    (convert,) = (each for name, each in kinds.items() if values["_class_name"].startswith(name))
    return prefixed(DENOISER, convert(weights(folder), values))


def own_vae(folder: Path) -> Tensors:
    return vae(weights(folder / "vae"), config_of(folder / "vae"))


def stable_diffusion_1(folder: Path) -> Tensors:
    return {
        **denoiser(folder / "unet"),
        **prefixed("first_stage_model.", own_vae(folder)),
        **prefixed("cond_stage_model.transformer.", clip(weights(folder / "text_encoder"))),
    }


def stable_diffusion_2(folder: Path) -> Tensors:
    return {
        **denoiser(folder / "unet"),
        **prefixed("first_stage_model.", own_vae(folder)),
        **prefixed("cond_stage_model.model.", open_clip(weights(folder / "text_encoder"))),
    }


def stable_diffusion_xl(folder: Path) -> Tensors:
    one, two = (weights(folder / name) for name in ("text_encoder", "text_encoder_2"))
    return {
        **denoiser(folder / "unet"),
        **prefixed("first_stage_model.", own_vae(folder)),
        **prefixed("conditioner.embedders.0.transformer.", clip(one)),
        **prefixed("conditioner.embedders.1.model.", open_clip(two)),
    }


def stable_diffusion_3(folder: Path) -> Tensors:
    one, two = (weights(folder / name) for name in ("text_encoder", "text_encoder_2"))
    return {
        **denoiser(folder / "transformer"),
        **prefixed("first_stage_model.", own_vae(folder)),
        **prefixed("text_encoders.clip_l.transformer.", clip(one)),
        **prefixed("text_encoders.clip_g.transformer.", clip(two)),
        **prefixed("text_encoders.t5xxl.transformer.", weights(folder / "text_encoder_3")),
    }


def flux(folder: Path) -> Tensors:
    one, two = (weights(folder / name) for name in ("text_encoder", "text_encoder_2"))
    return {
        **denoiser(folder / "transformer"),
        **prefixed("vae.", own_vae(folder)),
        **prefixed("text_encoders.clip_l.transformer.", clip(one)),
        **prefixed("text_encoders.t5xxl.transformer.", two),
    }


def write(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """Write a single file."""
    own = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    save_file(own, path)
    return path


def any_width(width: int) -> SimpleNamespace:
    """PyTorch for diffusers' converter of Flux, which counts on a width of 3,072."""

    def split(tensor: Tensor, sizes: tuple[int, ...], dim: int) -> tuple[Tensor, ...]:
        return torch.split(tensor, [size * width // 3072 for size in sizes], dim=dim)

    return SimpleNamespace(**{**vars(torch), "split": split})
