"""Low-rank weights of every format, merged as PEFT, diffusers or the definition has it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from sdpack.errors import SourceError
from sdpack.export.adapter_products import LowRank
from sdpack.export.lora import check_fits, merge
from torch import Tensor, nn

from tests.e2e import families

LINEAR = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "down_blocks.0.resnets.0.conv1"
POINT = "down_blocks.1.attentions.0.proj_in"  # a convolution of one pixel
RANK = 2


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return families.unet()


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def kohya(module: str, shape: tuple[int, ...], **more: Tensor) -> dict[str, Tensor]:
    """One layer as kohya's scripts write it."""
    name = "lora_unet_" + module.replace(".", "_")
    return {
        f"{name}.lora_down.weight": random(RANK, *shape[1:]),
        f"{name}.lora_up.weight": random(shape[0], RANK, *(1 for _ in shape[2:])),
        **{f"{name}.{key}": tensor for key, tensor in more.items()},
    }


def merged(
    model: nn.Module, file: Mapping[str, Tensor], folder: Path, scale: float = 1.0
) -> dict[str, Tensor]:
    """Weights of a copy of a model, a file merged into it."""
    path = folder / "lora.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in file.items()}, path)
    changed = copy.deepcopy(model)
    merge(changed, path, scale)
    return weights(changed)


def by_peft(
    model: nn.Module, file: Mapping[str, Tensor], config: LoraConfig, scale: float = 1.0
) -> dict[str, Tensor]:
    """Weights of a copy of a model, layers merged into it by PEFT.

    Args:
        file: by PEFT's own names.
    """
    from diffusers.utils.peft_utils import recurse_remove_peft_layers
    from peft import set_peft_model_state_dict

    changed = inject_adapter_in_model(config, copy.deepcopy(model))
    result = set_peft_model_state_dict(changed, dict(file))
    assert result.unexpected_keys == []
    for layer in changed.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.scale_layer(scale)
            layer.merge()
    return weights(recurse_remove_peft_layers(changed))


def assert_same(seen: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert seen.keys() == wanted.keys()
    for name in wanted:
        assert torch.allclose(seen[name], wanted[name], atol=1e-5), name


def doras(model: nn.Module) -> dict[str, tuple[int, ...]]:
    state = model.state_dict()
    return {module: tuple(state[f"{module}.weight"].shape) for module in (LINEAR, CONV, POINT)}


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_kohya_dora_is_what_peft_makes_of_it(unet: nn.Module, tmp_path: Path, scale: float) -> None:
    file: dict[str, torch.Tensor] = {}
    same: dict[str, torch.Tensor] = {}
    for module, shape in doras(unet).items():
        ones = (1,) * (len(shape) - 1)
        magnitude = random(shape[0], seed=7).abs() + 0.5
        alpha = torch.tensor(1.0)
        layer = kohya(module, shape, alpha=alpha, dora_scale=magnitude.reshape(-1, *ones))
        file |= layer
        down, up = list(layer.values())[:2]
        same[f"{module}.lora_A.weight"], same[f"{module}.lora_B.weight"] = down, up
        theirs = magnitude if len(shape) == 2 else magnitude.reshape(1, -1, *ones[1:])
        same[f"{module}.lora_magnitude_vector"] = theirs
    config = LoraConfig(r=RANK, lora_alpha=1, target_modules=list(doras(unet)), use_dora=True)
    seen = merged(unet, file, tmp_path, scale)
    assert_same(seen, by_peft(unet, same, config, scale))
    plain = {key: tensor for key, tensor in file.items() if not key.endswith("dora_scale")}
    assert not torch.allclose(
        seen[f"{LINEAR}.weight"], merged(unet, plain, tmp_path, scale)[f"{LINEAR}.weight"], atol=0.1
    )


@pytest.mark.parametrize("module", [LINEAR, CONV])
def test_dora_with_a_norm_for_each_input(unet: nn.Module, tmp_path: Path, module: str) -> None:
    """As LyCORIS has it unless it is told otherwise; as many inputs as outputs make no doubt."""
    weight = unet.state_dict()[f"{module}.weight"]
    assert weight.shape[0] == weight.shape[1]
    magnitude = random(weight.shape[1]).abs() + 0.5
    file = kohya(
        module, tuple(weight.shape), dora_scale=magnitude.reshape(1, -1, *(1,) * (weight.ndim - 2))
    )
    seen = merged(unet, file, tmp_path)[f"{module}.weight"]
    down, up = list(file.values())[:2]
    whole = weight + (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    for column in range(weight.shape[1]):
        part = whole[:, column]
        assert torch.allclose(seen[:, column], magnitude[column] * part / part.norm(), atol=1e-5)


def test_dora_as_peft_and_diffusers_write_it(unet: nn.Module, tmp_path: Path) -> None:
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=[LINEAR, CONV], use_dora=True)
    same = {}
    for module, shape in doras(unet).items():
        if module == POINT:
            continue
        down, up = kohya(module, shape).values()
        magnitude = random(shape[0]).abs() + 0.5
        same[f"{module}.lora_A.weight"], same[f"{module}.lora_B.weight"] = down, up
        same[f"{module}.lora_magnitude_vector"] = (
            magnitude if len(shape) == 2 else magnitude.reshape(1, -1, 1, 1)
        )
    file = {f"unet.{key}": tensor for key, tensor in same.items()}
    assert_same(merged(unet, file, tmp_path), by_peft(unet, same, config))


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([0, 1]))
def test_dora_sets_the_norms_it_names(outputs: int, inputs: int, axis: int) -> None:
    """Whatever was merged: along the axis of the magnitudes, norms are those."""
    from sdpack.export.lora import _Change, _merged

    sides = (outputs, inputs)
    magnitude = random(sides[axis]).abs() + 0.1
    shape = (-1, 1) if axis == 0 else (1, -1)
    change = _Change(
        "m",
        ("k",),
        LowRank(random(RANK, inputs), random(outputs, RANK)),
        0.5,
        magnitude=magnitude.reshape(shape),
    )
    seen = _merged(random(outputs, inputs), change, 1.0, Path("file"))
    assert torch.allclose(seen.norm(dim=1 - axis), magnitude, atol=1e-4)


def test_a_middle_convolution_is_one_of_three(unet: nn.Module, tmp_path: Path) -> None:
    """Merged, the layer gives what the file's three convolutions give one after the other."""
    weight = unet.state_dict()[f"{CONV}.weight"]
    outputs, inputs = weight.shape[:2]
    name = "lora_unet_" + CONV.replace(".", "_")
    down, mid, up = (
        random(RANK, inputs, 1, 1),
        random(RANK, RANK, 3, 3),
        random(outputs, RANK, 1, 1),
    )
    file = {
        f"{name}.lora_down.weight": down,
        f"{name}.lora_mid.weight": mid,
        f"{name}.lora_up.weight": up,
        f"{name}.alpha": torch.tensor(3.0),
    }
    seen = merged(unet, file, tmp_path)[f"{CONV}.weight"]
    pictures = random(1, inputs, 8, 8)
    added = nn.functional.conv2d(
        nn.functional.conv2d(nn.functional.conv2d(pictures, down), mid), up
    )
    wanted = nn.functional.conv2d(pictures, weight) + 3.0 / RANK * added
    assert torch.allclose(nn.functional.conv2d(pictures, seen), wanted, atol=1e-3)


def test_a_bias_is_added_as_peft_adds_it(unet: nn.Module, tmp_path: Path) -> None:
    module = f"{LINEAR[:-4]}to_out.0"
    shape = tuple(unet.state_dict()[f"{module}.weight"].shape)
    down, up = kohya(module, shape).values()
    same = {
        f"{module}.lora_A.weight": down,
        f"{module}.lora_B.weight": up,
        f"{module}.lora_B.bias": random(shape[0]),
    }
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=[module], lora_bias=True)
    file = {f"unet.{key}": tensor for key, tensor in same.items()}
    assert_same(merged(unet, file, tmp_path, 0.5), by_peft(unet, same, config, 0.5))


@pytest.mark.parametrize("where", ["in the file", "beside it"])
def test_peft_settings_tell_the_scale(unet: nn.Module, tmp_path: Path, where: str) -> None:
    """Different for two layers, and with the square root of the rank."""
    state, same = unet.state_dict(), {}
    for module in (LINEAR, CONV):
        down, up = kohya(module, tuple(state[f"{module}.weight"].shape)).values()
        same[f"{module}.lora_A.weight"], same[f"{module}.lora_B.weight"] = down, up
    config = LoraConfig(
        r=RANK,
        lora_alpha=5,
        alpha_pattern={CONV: 3},
        target_modules=[LINEAR, CONV],
        use_rslora=True,
    )
    settings = {"r": RANK, "lora_alpha": 5, "alpha_pattern": {CONV: 3}, "use_rslora": True}
    path = tmp_path / "lora.safetensors"
    if where == "in the file":
        header = {f"unet.{key}": value for key, value in settings.items()}
        metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(header)}
        save_file({f"unet.{key}": tensor for key, tensor in same.items()}, path, metadata)
    else:
        save_file({f"base_model.model.{key}": tensor for key, tensor in same.items()}, path)
        (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **settings}))
    changed = copy.deepcopy(unet)
    merge(changed, tmp_path, 1.0)
    assert_same(weights(changed), by_peft(unet, same, config))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("init_lora_weights", "pissa_niter_4"), ("peft_type", "LOHA"), ("fan_in_fan_out", True)],
)
def test_peft_settings_that_change_what_is_merged_are_refused(
    unet: nn.Module, tmp_path: Path, setting: str, value: object
) -> None:
    settings = {"r": RANK, "lora_alpha": RANK, setting: value}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    file = {
        f"base_model.model.{LINEAR}.lora_{x}.weight": torch.ones(*s)
        for x, s in (("A", (2, 16)), ("B", (16, 2)))
    }
    with pytest.raises(SourceError, match=f"its setting {setting} is {value!r}, which sdpack"):
        merged(unet, file, tmp_path)


def without_up(file: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in file.items() if "lora_up" not in key}


def for_another_layer(file: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**file, **kohya("down_blocks.9.nothing", (16, 16))}


def of_another_shape(_: dict[str, Tensor]) -> dict[str, Tensor]:
    return kohya(LINEAR, (16, 24))


def of_an_odd_magnitude(_: dict[str, Tensor]) -> dict[str, Tensor]:
    return kohya(LINEAR, (16, 16), dora_scale=torch.ones(3, 1))


def with_a_bias_for_none(file: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**file, f"lora_unet_{LINEAR.replace('.', '_')}.lora_B.bias": torch.ones(16)}


def not_a_number(file: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: torch.full_like(tensor, float("nan")) for key, tensor in file.items()}


def twice(file: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        **file,
        f"unet.{LINEAR}.lora_A.weight": torch.ones(2, 16),
        f"unet.{LINEAR}.lora_B.weight": torch.ones(16, 2),
    }


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (without_up, r"attn1_to_q\.lora_down\.weight without the layer's up weights"),
        (for_another_layer, r"has no layer for lora_unet_down_blocks_9_nothing\.lora_down\.weight"),
        (of_another_shape, r"for a weight of shape \(16, 24\), but .* has \(16, 16\)"),
        (of_an_odd_magnitude, r"dora_scale has shape \(3, 1\), but its layer has 16 outputs"),
        (with_a_bias_for_none, r"lora_B\.bias, .* change a bias, but .* has none"),
        (
            not_a_number,
            r"lora_down\.weight, .* makes numbers of .*to_q\.weight that are not finite",
        ),
        (twice, r"both change down_blocks\.1"),
    ],
)
def test_what_does_not_fit_is_named(
    unet: nn.Module,
    tmp_path: Path,
    harm: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    said: str,
) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        merged(unet, harm(kohya(LINEAR, (16, 16))), tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_are_not_needed_to_see_what_fits(tmp_path: Path) -> None:
    file = {**kohya(LINEAR, (16, 16)), "lora_te_text_model_x.lora_down.weight": torch.ones(2, 16)}
    file["lora_te_text_model_x.lora_up.weight"] = torch.ones(16, 2)
    path = tmp_path / "lora.safetensors"
    save_file(file, path)
    with torch.device("meta"):
        empty = families.unet()
    assert check_fits(empty, path) == {"denoiser"}
