from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sdpack.errors import MissingPackageError, SourceError
from sdpack.export.single_file.content import OriginalFile, empty, is_denoiser, starting

from tests.sdpack.export.single_file.tiny_models import Tiny


def saved(path: Path, **tensors: torch.Tensor) -> OriginalFile:
    save_file(tensors, path)
    return OriginalFile(path)


def test_a_file_of_a_denoiser_alone_is_read_as_if_it_held_a_whole_model(tmp_path: Path) -> None:
    names = ("double_blocks.0.a", "img_in.weight", "vae.b")
    tensors = {name: torch.ones(2, number + 1) for number, name in enumerate(names)}
    file = saved(tmp_path / "flux.safetensors", **tensors)
    assert file.shapes == {
        "model.diffusion_model.double_blocks.0.a": (2, 1),
        "model.diffusion_model.img_in.weight": (2, 2),
        "vae.b": (2, 3),
    }
    assert file.tensors(is_denoiser).keys() == {
        "model.diffusion_model.double_blocks.0.a",
        "model.diffusion_model.img_in.weight",
    }


def test_marks_keep_their_names_beside_a_bare_denoiser(tmp_path: Path) -> None:
    file = saved(
        tmp_path / "a.safetensors",
        **{"input_blocks.0.0.weight": torch.ones(1), "v_pred": torch.ones(0)},
    )
    assert "v_pred" in file.shapes


def test_a_whole_model_keeps_its_names(tiny: Callable[[str], Tiny]) -> None:
    file = OriginalFile(tiny("sd1").file)
    assert not any(name.startswith("model.diffusion_model.model.") for name in file.shapes)
    assert file.has(("first_stage_model.",))
    assert not file.has(("text_encoders.",))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bit_floats_become_the_same_numbers_in_fp16(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    numbers = torch.tensor([0.0, 1.5, -0.015625, 448.0, 0.001953125])
    file = saved(
        tmp_path / "a.safetensors", w=numbers.to(dtype), b=torch.ones(1, dtype=torch.float32)
    )
    found = file.tensors(starting(""))
    assert found["w"].dtype == torch.float16
    assert torch.equal(found["w"].float(), numbers.to(dtype).float())
    assert found["b"].dtype == torch.float32


def test_a_pickle_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"is a pickle.*sdpack catalog convert '?.*a b\.ckpt"):
        _ = OriginalFile(tmp_path / "a b.ckpt").shapes
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"a\.safetensors cannot be read"):
        _ = OriginalFile(tmp_path / "a.safetensors").shapes


def test_empty_tensors_have_shapes_and_no_numbers() -> None:
    found = empty({"a": (3, 4)})
    assert found["a"].is_meta
    assert found["a"].shape == (3, 4)


def test_gguf_without_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match=r"needs gguf; install it with: .*gguf"):
        _ = OriginalFile(tmp_path / "a.gguf").shapes


def test_gguf_is_dequantized_as_its_own_package_does(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    weight = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "flux")
    kind = gguf.GGMLQuantizationType.Q8_0
    packed = gguf.quants.quantize(weight, kind)
    writer.add_tensor("double_blocks.0.w", packed, raw_dtype=kind)
    writer.add_tensor("double_blocks.0.b", weight[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = OriginalFile(tmp_path / "a.gguf")
    begin = "model.diffusion_model.double_blocks.0"
    assert file.shapes == {f"{begin}.w": (4, 64), f"{begin}.b": (64,)}
    found = file.tensors(is_denoiser)
    wanted = torch.from_numpy(gguf.quants.dequantize(packed, kind)).half()
    assert torch.equal(found[f"{begin}.w"], wanted)
    assert torch.equal(found[f"{begin}.b"], torch.from_numpy(weight[0]))
