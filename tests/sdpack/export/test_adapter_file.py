from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from sdpack.errors import SourceError
from sdpack.export.adapter_file import (
    AdapterTensor,
    adapter_content,
    adapter_path,
    layers_of,
    named,
    read_adapter,
)
from torch import Tensor

from tests.sdpack.export.test_lora import CONV, LINEAR, kohya

STRANGE = {
    "hada_w9": "LoHa weights",
    "lokr_w9": "LoKr weights",
    "oft_blocks": "OFT weights",
    "a1.weight": "GLoRA weights",
    "on_input": "IA3 weights",
    "diff": "full weight differences",
    "w_norm": "weights of normalization layers",
    "scalar": "LyCORIS's learned scales",
    "something": "keys that do not belong to a LoRA",
}


# How programs write the two factors of a layer's change.
PAIRS = [
    ("lora_unet_x_to_q.lora_down.weight", "lora_unet_x_to_q.lora_up.weight"),
    ("unet.x.to_q.lora_A.weight", "unet.x.to_q.lora_B.weight"),
    ("unet.x.to_q.lora_A.default.weight", "unet.x.to_q.lora_B.default.weight"),
    ("unet.x.to_q_lora.down.weight", "unet.x.to_q_lora.up.weight"),
    ("unet.x.to_q.lora.down.weight", "unet.x.to_q.lora.up.weight"),
    ("text_encoder.x.lora_linear_layer.down.weight", "text_encoder.x.lora_linear_layer.up.weight"),
]


def saved(folder: Path, file: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    path = folder / "lora.safetensors"
    save_file(file, path, metadata)
    return path


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("suffix", STRANGE)
def test_what_is_no_lora_is_named_and_refused(tmp_path: Path, suffix: str, alone: bool) -> None:
    key = f"lora_unet_{CONV.replace('.', '_')}.{suffix}"
    file = {} if alone else kohya(LINEAR, (16, 16))
    with pytest.raises(SourceError) as caught:
        read_adapter(saved(tmp_path, {**file, key: torch.ones(2, 2)}))
    said = str(caught.value)
    assert (
        f"holds {STRANGE[suffix]} ({key}); sdpack merges only LoRA, DoRA, LoHa and LoKr: merge"
        in said
    )
    assert said.endswith("and give that checkpoint")


def test_of_many_keys_a_few_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    file = {f"lora_unet_{n}.oft_blocks": torch.ones(1) for n in range(9)}
    with pytest.raises(SourceError, match=r"lora_unet_3\.oft_blocks and 5 more\);"):
        read_adapter(saved(tmp_path, file))


@pytest.mark.parametrize(("down", "up"), PAIRS)
def test_both_factors_form_one_layer_in_every_spelling(down: str, up: str) -> None:
    (layer,) = layers_of([up, down])
    assert layer.keys == {AdapterTensor.DOWN: down, AdapterTensor.UP: up}
    assert layer.component in ("denoiser", "unet", "text_encoder")
    assert layer.path in ("x_to_q", "x.to_q", "x")


@given(st.permutations([key for pair in PAIRS[:2] for key in pair] + ["lora_unet_x_to_q.alpha"]))
def test_keys_may_come_in_any_order(keys: list[str]) -> None:
    found = {layer.name: set(layer.keys) for layer in layers_of(keys)}
    both = {AdapterTensor.DOWN, AdapterTensor.UP}
    assert found == {"lora_unet_x_to_q": both | {AdapterTensor.ALPHA}, "unet.x.to_q": both}


def test_components_have_keys_and_settings_of_their_own(tmp_path: Path) -> None:
    pair = {"lora_A.weight": torch.ones(2, 3), "lora_B.weight": torch.ones(3, 2)}
    file = {
        f"{part}.x.{name}": t.clone()
        for part in ("unet", "text_encoder")
        for name, t in pair.items()
    }
    header = {"unet.r": 2, "text_encoder.r": 4, "unet.lora_alpha": 8}
    found = read_adapter(saved(tmp_path, file, {"lora_adapter_metadata": json.dumps(header)}))
    assert sorted(found.components) == ["text_encoder", "unet"]
    assert sorted(found.keys(["unet"])) == ["unet.x.lora_A.weight", "unet.x.lora_B.weight"]
    assert found.settings("unet") == {"r": 2, "lora_alpha": 8}
    assert found.settings("text_encoder") == {"r": 4}


def test_the_content_is_of_the_weights_and_the_settings_beside_them(tmp_path: Path) -> None:
    seen = set()
    for alpha in (1.0, 2.0):
        saved(tmp_path, kohya(LINEAR, (16, 16), alpha=torch.tensor(alpha)))
        for settings in (None, "{}", '{"r": 2}'):
            if settings is not None:
                (tmp_path / "adapter_config.json").write_text(settings)
            seen.add(adapter_content(tmp_path))
        (tmp_path / "adapter_config.json").unlink()
    assert len(seen) == 2 * 3


def test_a_folder_stands_for_the_only_file_in_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"expected one \.safetensors LoRA file, found none"):
        adapter_path(tmp_path)
    path = saved(tmp_path, kohya(LINEAR, (16, 16)))
    assert adapter_path(tmp_path) == adapter_path(path) == path
    (tmp_path / "b.safetensors").touch()
    with pytest.raises(SourceError, match=r"found b\.safetensors, lora\.safetensors"):
        adapter_path(tmp_path)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["unet.x.lora_A.weight"], "holds unet.x.lora_A.weight without the layer's up weights"),
        (["unet.x.alpha"], "without the layer's down and up weights"),
        ([], "holds no LoRA weights"),
    ],
)
def test_a_file_without_whole_layers_is_refused(tmp_path: Path, keys: list[str], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        read_adapter(saved(tmp_path, {key: torch.ones(2, 2) for key in keys}))


def test_a_damaged_file_and_damaged_settings_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path, kohya(LINEAR, (16, 16)))
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(SourceError, match=r"its settings .* cannot be read"):
        read_adapter(path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(SourceError, match=r"lora\.safetensors cannot be read as safetensors"):
        read_adapter(path)


@given(st.integers(0, 12))
def test_four_keys_are_named_and_the_rest_counted(count: int) -> None:
    said = named(f"k{number}" for number in range(count))
    first, _, more = said.partition(" and ")
    shown = first.split(", ") if first else []
    assert shown == [f"k{number}" for number in range(min(count, 4))]
    assert more == (f"{count - 4} more" if count > 4 else "")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (
            {"<style>": torch.ones(3, 8)},
            "is not a LoRA, but a textual inversion embedding of 3 vect",
        ),
        ({"emb_params": torch.ones(1, 8)}, r"embedding of 1 vector: .*load_textual_inversion"),
        (
            {"control_model.x": torch.ones(2, 2)},
            "is not a LoRA, but a ControlNet: sdpack draws from",
        ),
        ({"first_stage_model.x": torch.ones(2)}, "is not a LoRA, but a VAE in the original layout"),
    ],
)
def test_other_files_listed_as_a_lora_are_named(
    tmp_path: Path, file: dict[str, Tensor], said: str
) -> None:
    with pytest.raises(SourceError, match=said):
        read_adapter(saved(tmp_path, file))


def test_a_pickled_lora_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_lora_weights.bin"
    torch.save(kohya(LINEAR, (16, 16)), path)
    with pytest.raises(SourceError, match=r"is a pickle, .*give the LoRA as .safetensors"):
        read_adapter(path)
