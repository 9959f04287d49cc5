"""LoHa and LoKr, merged as PEFT does, or as their definitions have it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoHaConfig, LoKrConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from sdpack.errors import SourceError
from sdpack.export.lora import check_fits, merge
from torch import Tensor, nn
from transformers import CLIPTextModel

from tests.e2e import families
from tests.sdpack.export.test_lora import CONV, LINEAR, POINT, assert_same, random, weights

MODULES = (LINEAR, CONV, POINT)
RANK = 2


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return families.unet()


def saved(folder: Path, file: Mapping[str, Tensor]) -> Path:
    path = folder / "lycoris.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in file.items()}, path)
    return path


def merged(model: nn.Module, path: Path, scale: float = 1.0) -> dict[str, Tensor]:
    changed = copy.deepcopy(model)
    merge(changed, path, scale)
    return weights(changed)


def trained_by_peft(model: nn.Module, config: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The adapter's tensors by PEFT's names, and the weights with them merged by PEFT."""
    torch.manual_seed(0)
    changed: Any = inject_adapter_in_model(config, copy.deepcopy(model))
    changed.peft_config = {"default": config}
    with torch.no_grad():
        for name, parameter in changed.named_parameters():
            if "hada_" in name or "lokr_" in name:
                parameter.normal_(std=0.5)
    state = get_peft_model_state_dict(changed, adapter_name="default")
    for layer in changed.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
    plain = {key.replace(".base_layer", ""): t for key, t in changed.state_dict().items()}
    wanted = {key: plain[key].clone() for key in model.state_dict()}
    return {key: tensor.clone() for key, tensor in state.items()}, wanted


CONFIGS: dict[str, Any] = {
    "loha": LoHaConfig(r=RANK, alpha=3, target_modules=list(MODULES)),
    "loha with kernels": LoHaConfig(
        r=RANK, alpha=3, target_modules=list(MODULES), use_effective_conv2d=True
    ),
    "lokr": LoKrConfig(r=RANK, alpha=3, target_modules=list(MODULES)),
    "lokr with kernels": LoKrConfig(
        r=1, alpha=3, target_modules=list(MODULES), use_effective_conv2d=True, decompose_factor=2
    ),
    "lokr of four factors": LoKrConfig(
        r=1, alpha=3, target_modules=list(MODULES), decompose_both=True, decompose_factor=4
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_what_peft_makes_of_it(unet: nn.Module, tmp_path: Path, name: str) -> None:
    """With PEFT's settings beside the file, and with the same alpha in LyCORIS's own format."""
    config = CONFIGS[name]
    state, wanted = trained_by_peft(unet, config)
    assert_changed(unet, wanted)
    file = {f"base_model.model.{key}": tensor for key, tensor in state.items()}
    settings = {"peft_type": config.peft_type.value, "alpha": config.alpha, "r": config.r}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert_same(merged(unet, saved(tmp_path, file)), wanted)


def assert_changed(model: nn.Module, wanted: Mapping[str, Tensor]) -> None:
    """The test shows something: each module's weights differ from the model's own."""
    before = model.state_dict()
    for module in MODULES:
        assert not torch.allclose(wanted[f"{module}.weight"], before[f"{module}.weight"], atol=1e-2)


def lycoris(module: str, **tensors: Tensor) -> dict[str, Tensor]:
    name = "lora_unet_" + module.replace(".", "_")
    return {f"{name}.{key}": tensor for key, tensor in tensors.items()}


def loha(outputs: int, inputs: int) -> dict[str, Tensor]:
    return {
        "hada_w1_a": random(outputs, RANK),
        "hada_w1_b": random(RANK, inputs),
        "hada_w2_a": random(outputs, RANK, seed=1),
        "hada_w2_b": random(RANK, inputs, seed=2),
    }


@pytest.mark.parametrize("module", MODULES)
def test_a_loha_of_lycoris(unet: nn.Module, tmp_path: Path, module: str) -> None:
    """Its kernels are flattened, and alpha is divided by the rank."""
    before = unet.state_dict()[f"{module}.weight"]
    tensors = loha(before.shape[0], before[0].numel())
    file = lycoris(module, alpha=torch.tensor(1.0), **tensors)
    first = tensors["hada_w1_a"] @ tensors["hada_w1_b"]
    second = tensors["hada_w2_a"] @ tensors["hada_w2_b"]
    seen = merged(unet, saved(tmp_path, file), scale=0.5)[f"{module}.weight"]
    assert torch.allclose(seen, before + 0.5 / RANK * (first * second).reshape(before.shape))


def test_a_lokr_of_two_whole_matrices_does_not_heed_alpha(unet: nn.Module, tmp_path: Path) -> None:
    before = unet.state_dict()[f"{LINEAR}.weight"]
    w1, w2 = random(4, 2), random(before.shape[0] // 4, before.shape[1] // 2)
    file = lycoris(LINEAR, lokr_w1=w1, lokr_w2=w2, alpha=torch.tensor(1e9))
    seen = merged(unet, saved(tmp_path, file))[f"{LINEAR}.weight"]
    rows, columns = w2.shape
    row, column = 2 * rows + 1, columns + 3  # of the third row and second column of copies
    assert torch.allclose(seen, before + torch.kron(w1, w2))
    change = (seen - before)[row, column]
    assert change.item() == pytest.approx((w1[2, 1] * w2[1, 3]).item(), rel=1e-3)


def test_a_lokr_of_a_convolution_with_a_factored_second_matrix(
    unet: nn.Module, tmp_path: Path
) -> None:
    before = unet.state_dict()[f"{CONV}.weight"]
    outputs, inputs, *kernel = before.shape
    w1 = random(2, 2)
    w2_a, w2_b = random(outputs // 2, RANK), random(RANK, inputs // 2 * kernel[0] * kernel[1])
    file = lycoris(CONV, lokr_w1=w1, lokr_w2_a=w2_a, lokr_w2_b=w2_b, alpha=torch.tensor(3.0))
    w2 = (w2_a @ w2_b).reshape(outputs // 2, inputs // 2, *kernel)
    change = torch.kron(w1[:, :, None, None], w2)
    seen = merged(unet, saved(tmp_path, file))[f"{CONV}.weight"]
    assert torch.allclose(seen, before + 3 / RANK * change, atol=1e-6)


def test_a_loha_with_magnitudes_has_their_norms(unet: nn.Module, tmp_path: Path) -> None:
    outputs, inputs = unet.state_dict()[f"{LINEAR}.weight"].shape
    magnitude = random(outputs, 1).abs() + 0.5
    file = lycoris(LINEAR, dora_scale=magnitude, **loha(outputs, inputs))
    seen = merged(unet, saved(tmp_path, file))[f"{LINEAR}.weight"]
    assert torch.allclose(seen.norm(dim=1, keepdim=True), magnitude, atol=1e-4)


def test_names_of_the_original_layout_are_found() -> None:
    """LyCORIS's files for SDXL name the original layers, such as input_blocks.4."""
    from sdpack.export.adapter_file import AdapterLayer
    from sdpack.export.adapter_layers import LayerFinder

    xl: nn.Module = families.unet(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        use_linear_projection=True,
    )
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    found = LayerFinder(xl).modules(AdapterLayer(name, {}), (16, 16))
    assert found == ["down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"]


def test_a_text_encoder_is_recognized_by_its_width(tmp_path: Path) -> None:
    clip: Any = families.clip()
    assert isinstance(clip, CLIPTextModel)
    name = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
    for tensors in (loha(16, 16), {"lokr_w1": random(4, 4), "lokr_w2": random(4, 4)}):
        file = {f"{name}.{key}": tensor for key, tensor in tensors.items()}
        assert check_fits(clip, saved(tmp_path, file)) == {"text_encoder"}
        other = {key.replace("te1", "te2"): random(*t.shape, seed=3) for key, t in file.items()}
        assert check_fits(clip, saved(tmp_path, other)) == {"text_encoder_2"}
        wide = {"lokr_w1": random(4, 4), "lokr_w2": random(6, 6)}
        more = {f"{name.replace('te1', 'te2')}.{key}": t for key, t in wide.items()}
        assert check_fits(clip, saved(tmp_path, {**file, **more})) == {"text_encoder"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hada_w2_b": None}, "without the layer's hada_w2_b weights"),
        ({"hada_t1": random(RANK, RANK, 1, 1)}, "without the layer's hada_t2 weights"),
        ({"lora_down.weight": random(RANK, 16)}, "which are of two kinds of adapter"),
        ({"lokr_w1": random(2, 2)}, "which are of two kinds of adapter"),
        ({"hada_w1_b": random(RANK, 8)}, r"does not fit: .* for a weight of shape \(16, 8\), but"),
        ({"hada_w2_a": random(16, 3)}, r"does not fit: .* of shape \(16, 16\)"),
    ],
)
def test_a_loha_that_is_not_whole_is_refused(
    unet: nn.Module, tmp_path: Path, changes: dict[str, Tensor | None], said: str
) -> None:
    tensors = {**loha(16, 16), **changes}
    file = lycoris(LINEAR, **{key: t for key, t in tensors.items() if t is not None})
    with pytest.raises(SourceError, match=said):
        check_fits(unet, saved(tmp_path, file))


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"lokr_w1": random(4, 4)}, "without the layer's lokr_w2_a and lokr_w2_b weights"),
        ({"lokr_w1": random(4, 4), "lokr_w2_a": random(4, 2)}, "without the layer's lokr_w2_b"),
        ({"lokr_w1": random(4, 4), "lokr_w2": random(4, 3)}, r"weight of shape \(16, 12\), but"),
        (
            {"lokr_w1": random(4, 4), "lokr_w1_a": random(4, 2), "lokr_w2": random(4, 4)},
            "which are of two kinds of adapter",
        ),
    ],
)
def test_a_lokr_that_is_not_whole_is_refused(
    unet: nn.Module, tmp_path: Path, tensors: dict[str, Tensor], said: str
) -> None:
    with pytest.raises(SourceError, match=said):
        check_fits(unet, saved(tmp_path, lycoris(LINEAR, **tensors)))


def test_settings_of_another_kind_of_adapter_are_refused(unet: nn.Module, tmp_path: Path) -> None:
    file = {f"base_model.model.{LINEAR}.{key}": t for key, t in loha(16, 16).items()}
    path = saved(tmp_path, file)
    settings = tmp_path / "adapter_config.json"
    settings.write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 1, "r": RANK}))
    with pytest.raises(SourceError, match="its setting peft_type is 'LORA', which"):
        check_fits(unet, path)
    settings.write_text(json.dumps({"peft_type": "LOHA", "r": RANK}))
    with pytest.raises(SourceError, match="its settings alpha and r are not both numbers"):
        check_fits(unet, path)
