from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sdpack.export.adapter_file import AdapterLayer, AdapterTensor, layers_of
from sdpack.export.adapter_layers import LayerFinder
from torch import Tensor

from tests.e2e import families
from tests.sdpack.export.test_lora import RANK, kohya, merged, random, weights

TO_Q = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"


def placed(model: torch.nn.Module, name: str, down: Tensor, up: Tensor) -> dict[str, Tensor]:
    """By module, what one layer of a file adds to its weight."""
    keys = [f"{name}.lora_down.weight", f"{name}.lora_up.weight"]
    (layer,) = layers_of(keys)
    tensors = {AdapterTensor.DOWN: down, AdapterTensor.UP: up}
    return {module: b @ a for module, a, b in LayerFinder(model).places(layer, tensors)}


def test_names_that_diffusers_mistakes_are_found_in_the_model(tmp_path: Path) -> None:
    """Of add_embedding.linear_1 diffusers 0.42 makes add.embedding.linear, which is nowhere."""
    unet = families.sdxl()["unet"]
    layers = ("add_embedding.linear_1", "time_embedding.linear_2", "up_blocks.0.upsamplers.0.conv")
    file: dict[str, Tensor] = {}
    for module in layers:
        file |= kohya(module, tuple(unet.state_dict()[f"{module}.weight"].shape))
    plain, seen = weights(unet), merged(unet, file, tmp_path)
    changed = {name for name in plain if not torch.equal(plain[name], seen[name])}
    assert changed == {f"{module}.weight" for module in layers}


def test_names_of_the_first_sdxl_are_translated(tmp_path: Path) -> None:
    """input_blocks.4.1 is down_blocks.1.attentions.0 in a UNet with two layers a block."""
    unet = families.unet(
        layers_per_block=2,
        block_out_channels=(8, 16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    down, up = random(RANK, 16), random(16, RANK)
    magnitude = random(16).abs() + 0.5
    file = {
        f"{name}.lora_down.weight": down,
        f"{name}.lora_up.weight": up,
        f"{name}.alpha": torch.tensor(1.0),
        f"{name}.dora_scale": magnitude.reshape(-1, 1),
    }
    key = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    whole = unet.state_dict()[key] + up @ down / RANK
    wanted = magnitude.reshape(-1, 1) * whole / whole.norm(dim=1, keepdim=True)
    assert torch.allclose(merged(unet, file, tmp_path)[key], wanted, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        f"unet.{TO_Q}",
        f"lora_unet_{TO_Q.replace('.', '_')}",
        f"unet.{TO_Q.replace('.to_q', '.processor.to_q')}",
    ],
)
def test_one_module_is_found_by_each_of_its_spellings(name: str) -> None:
    down, up = random(RANK, 16), random(16, RANK)
    (found,) = placed(families.unet(), name, down, up).items()
    assert found[0] == TO_Q
    assert torch.equal(found[1], up @ down)


@pytest.mark.parametrize(
    ("said", "meant"),
    [("to_q", "q_proj"), ("to_k", "k_proj"), ("to_v", "v_proj"), ("to_out", "out_proj")],
)
def test_old_names_of_attention_in_a_text_encoder_are_known(said: str, meant: str) -> None:
    model = families.clip()
    module = f"encoder.layers.0.self_attn.{meant}"
    (name,) = [name for name in LayerFinder(model).shapes if name.endswith(module)]
    layer = f"text_encoder.encoder.layers.0.self_attn.{said}"
    assert list(placed(model, layer, random(RANK, 16), random(16, RANK))) == [name]


def test_queries_keys_and_values_that_are_one_layer_are_three_in_flux() -> None:
    model = families.flux(guidance_embeds=True)["transformer"]
    down, up = random(RANK, 32), random(3 * 32, RANK)
    found = placed(model, "lora_unet_double_blocks_0_img_attn_qkv", down, up)
    block = "transformer_blocks.0.attn"
    assert list(found) == [f"{block}.{name}" for name in ("to_q", "to_k", "to_v")]
    assert torch.allclose(torch.cat(list(found.values())), up @ down, atol=1e-6)


@pytest.mark.parametrize("make", [families.unet, families.clip, families.t5])
def test_a_layer_the_model_lacks_matches_no_module(make: Callable[[], torch.nn.Module]) -> None:
    assert placed(make(), "lora_unet_nothing_of_this_name", random(2, 4), random(4, 2)) == {}


def test_shapes_and_biases_are_those_of_a_model_without_numbers() -> None:
    with torch.device("meta"):
        finder = LayerFinder(families.unet())
    assert finder.shapes[TO_Q] == (16, 16)
    assert TO_Q not in finder.biases
    assert TO_Q.replace("to_q", "to_out.0") in finder.biases
    assert not any(name.endswith("norm") for name in finder.shapes)
    assert isinstance(layers_of(["a.lora_A.weight"])[0], AdapterLayer)
