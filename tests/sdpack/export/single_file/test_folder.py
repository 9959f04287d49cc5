"""Single files of every base make the folders that they were written from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sdpack.errors import InputError, SourceError
from sdpack.export.adopt import Adoption, adopt
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.single_file.folder import folder_of_file, keep_folder
from sdpack.export.single_file.options import FileOptions

from tests.sdpack.export.single_file import originals
from tests.sdpack.export.single_file.originals import DENOISER
from tests.sdpack.export.single_file.tiny_models import MODELS, Tiny, index_of

Model = Callable[[str], Tiny]


def made(tiny: Tiny, **more: Any) -> Path:
    return folder_of_file(tiny.file, FileOptions(folder=tiny.configs, **more), lambda _: None)


def drawn(folder: Path) -> np.ndarray[Any, Any]:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    named = inspect.signature(pipeline.__call__).parameters
    more = {"max_sequence_length": 20} if "max_sequence_length" in named else {}
    images = pipeline(
        "a red cat",
        height=48,
        width=64,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
        **more,
    ).images
    return np.asarray(images)


@pytest.mark.parametrize("name", MODELS)
def test_a_file_becomes_the_folder_it_was_written_from(tiny: Model, name: str) -> None:
    model = tiny(name)
    folder = made(model)
    compared = 0
    for path in sorted(model.folder.glob("*/*.safetensors")):
        wanted = originals.weights(path.parent)
        found = originals.weights(folder / path.parent.name)
        assert found.keys() == wanted.keys()
        for key, tensor in wanted.items():
            assert torch.equal(found[key], tensor), (path.parent.name, key)
            compared += 1
    assert compared > 100
    assert index_of(folder)["_class_name"] == index_of(model.folder)["_class_name"]


@pytest.mark.parametrize("name", MODELS)
def test_a_file_draws_what_its_folder_draws(tiny: Model, name: str) -> None:
    model = tiny(name)
    one, other = drawn(model.folder), drawn(made(model))
    assert one.std() > 0.01
    assert np.array_equal(one, other)


@pytest.mark.parametrize("name", MODELS)
def test_sdpack_loads_the_same_numbers_from_both(tiny: Model, name: str) -> None:
    model = tiny(name)
    found = adopt(str(model.file), Adoption(file=FileOptions(folder=model.configs))).catalog
    candidates = [
        *found.text_encoders.values(),
        *found.denoisers.values(),
        *found.decoders.values(),
    ]
    paths = [candidate.source.path for candidate in candidates]
    assert len(paths) == len(list(model.folder.glob("*/*.safetensors")))
    for path in paths:
        assert path is not None
        one = Checkpoint(path).load().state_dict()
        other = Checkpoint(model.folder / path.name).load().state_dict()
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), path.name


def test_a_file_is_converted_once_and_left_as_it_was(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("sd1")
    before = model.file.stat().st_mtime_ns, model.file.read_bytes()
    first = made(model)
    monkeypatch.setattr("sdpack.export.single_file.folder.write_folder", None)
    assert made(model) == first
    assert (model.file.stat().st_mtime_ns, model.file.read_bytes()) == before


def test_weights_of_a_folder_are_linked_and_other_files_copied(tiny: Model, tmp_path: Path) -> None:
    model = tiny("flux")
    tensors = load_file(model.file)
    alone = {n.removeprefix(DENOISER): t for n, t in tensors.items() if n.startswith(DENOISER)}
    path = originals.write(alone, tmp_path / "flux1.safetensors")
    folder = folder_of_file(path, FileOptions(folder=model.folder), lambda _: None)
    assert (folder / "text_encoder_2" / "model.safetensors").is_symlink()
    assert not (folder / "text_encoder_2" / "config.json").is_symlink()
    assert not (folder / "transformer" / "diffusion_pytorch_model.safetensors").is_symlink()
    assert np.array_equal(drawn(folder), drawn(model.folder))


def test_a_vae_beside_the_file_is_used(tiny: Model, tmp_path: Path) -> None:
    model = tiny("sd1")
    tensors = {name: 2 * tensor for name, tensor in originals.own_vae(model.folder).items()}
    vae = originals.write(tensors, tmp_path / "vae.safetensors")
    found = originals.weights(made(model, vae=vae) / "vae")
    wanted = originals.weights(model.folder / "vae")
    assert all(torch.equal(found[name], 2 * tensor) for name, tensor in wanted.items())
    with pytest.raises(SourceError, match=r"vae of .*sd3.safetensors: it has no post_quant_conv"):
        made(model, vae=tiny("sd3").file)


def test_a_textual_inversion_beside_the_file_is_added(tiny: Model, tmp_path: Path) -> None:
    model = tiny("sd1")
    path = originals.write({"emb_params": torch.ones(1, 16)}, tmp_path / "mystyle.safetensors")
    folder = made(model, embeddings=(path,))
    added = originals.weights(folder / "text_encoder")
    assert sum(tensor.shape == (521, 16) for tensor in added.values()) == 1
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    assert pipeline.tokenizer.convert_tokens_to_ids("mystyle") == 520


def test_a_denoiser_in_gguf_draws_what_its_numbers_draw(tiny: Model, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    model, path = tiny("flux"), tmp_path / "flux.gguf"
    writer = gguf.GGUFWriter(path, "flux")
    rounded = {}
    for name, tensor in load_file(model.file).items():
        if not name.startswith(DENOISER):
            continue
        plain, kind = tensor.numpy(), gguf.GGMLQuantizationType.Q8_0
        if plain.ndim == 2 and plain.shape[1] % 32 == 0:
            packed = gguf.quants.quantize(plain, kind)
            writer.add_tensor(name.removeprefix(DENOISER), packed, raw_dtype=kind)
            plain = gguf.quants.dequantize(packed, kind).astype(np.float16)
        else:
            writer.add_tensor(name.removeprefix(DENOISER), plain)
        rounded[name] = torch.from_numpy(plain)
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    same = originals.write(rounded, tmp_path / "rounded.safetensors")
    options = FileOptions(folder=model.folder)
    one, other = (
        originals.weights(folder_of_file(each, options, lambda _: None) / "transformer")
        for each in (path, same)
    )
    assert sum(tensor.dtype == torch.float16 for tensor in one.values()) > 20
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_catalog_of_a_file_is_that_of_its_folder(tiny: Model) -> None:
    model, lines = tiny("sdxl"), list[str]()
    file = FileOptions(folder=model.configs)
    found = adopt(str(model.file), Adoption(file=file), lines.append).catalog
    wanted = adopt(str(model.folder)).catalog
    assert found.name == "sdxl"
    assert found.image_size == wanted.image_size
    for role, name in (("text_encoders", "text-encoder-2"), ("denoisers", "unet")):
        one, other = getattr(found, role)[name], getattr(wanted, role)[name]
        assert one.parameters == other.parameters
    assert len(lines) == 1


def test_a_kept_folder_needs_no_store_and_replaces_no_other(tiny: Model, tmp_path: Path) -> None:
    folder = made(tiny("sd1"))
    kept = keep_folder(folder, tmp_path / "out" / "mine")
    assert (kept / "unet" / "config.json").read_bytes() == (
        folder / "unet" / "config.json"
    ).read_bytes()
    assert keep_folder(folder, kept) == kept
    with pytest.raises(InputError, match=r"mine exists already; remove it, or choose another"):
        keep_folder(made(tiny("sd2")), kept)
