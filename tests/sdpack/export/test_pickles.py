from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sdpack.documents.source import Source
from sdpack.errors import SdpackError, SourceError
from sdpack.export.adopt import adopt
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.pickles import convert_pickle, convert_pickles, without_pickles
from sdpack.export.source import local_folder

from tests.sdpack.export.test_adopt import pickled


def test_a_pickle_is_converted_when_it_is_asked_for(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models("sd"), tmp_path / "m"))
    before = Checkpoint(folder / "unet").content
    pickled(folder)
    assert convert_pickles(folder) == [folder / "unet" / "diffusion_pytorch_model.safetensors"]
    assert adopt(str(folder)).catalog.denoisers
    seen = dict(Checkpoint(folder / "unet").shapes())
    assert seen == dict(Checkpoint(models("sd") / "unet").shapes())
    assert convert_pickles(folder) == []
    assert before


def test_pickles_in_several_files_are_converted_with_their_index(
    models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDPACK_CACHE", str(tmp_path / "own"))
    folder = Path(shutil.copytree(models("sd"), tmp_path / "m")) / "text_encoder"
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    where = {name: f"pytorch_model-0000{1 + n % 2}-of-00002.bin" for n, name in enumerate(names)}
    for shard in set(where.values()):
        kept = {name: weights[name] for name in names if where[name] == shard}
        torch.save(kept, folder / shard, _use_new_zipfile_serialization="00001" in shard)
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    asked = Source(path=folder, allow_pickle=True)
    for found in (Checkpoint(local_folder(asked, Path())), Checkpoint(folder)):
        if found.folder == folder:
            assert len(convert_pickles(folder.parent)) == 3
        assert [path.name for path in found.weight_files] == [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ]
        loaded = found.load().state_dict()
        assert all(torch.equal(loaded[name], weights[name]) for name in names)
    assert convert_pickles(folder.parent) == []
    assert not list(local_folder(asked, Path()).glob("*.bin*"))
    (folder / "model.safetensors.index.json").unlink()
    index.write_text(json.dumps({"weight_map": {"w": "../../pytorch_model.bin"}}))
    with pytest.raises(SdpackError, match="which is not a shard beside it"):
        convert_pickles(folder)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": partial(print, "ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(SdpackError, match="cannot be read as plain tensors"):
        convert_pickles(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    torch.save([torch.zeros(2)], tmp_path / "pytorch_model.bin")
    with pytest.raises(SdpackError, match="something other than named tensors"):
        convert_pickles(tmp_path)


def test_tied_weights_are_each_written_whole(tmp_path: Path) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": tied, "b": tied, "c": tied.T}, tmp_path / "pytorch_model.bin")
    (written,) = convert_pickles(tmp_path)
    found = load_file(written)
    assert torch.equal(found["a"], tied)
    assert torch.equal(found["b"], tied)
    assert torch.equal(found["c"], tied.T)


def test_a_folder_without_pickles_is_made_again_only_where_files_changed(tmp_path: Path) -> None:
    folder, kept = tmp_path / "m", tmp_path / "kept"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    torch.save({"w": torch.ones(2)}, folder / "pytorch_model.bin")
    first = without_pickles(folder, kept)
    assert sorted(path.name for path in first.iterdir()) == ["config.json", "model.safetensors"]
    assert without_pickles(folder, kept) == first
    torch.save({"w": torch.zeros(2)}, folder / "pytorch_model.bin")
    os.utime(folder / "pytorch_model.bin", ns=(1, 1))
    second = without_pickles(folder, kept)
    assert second != first
    assert not first.exists()
    assert torch.equal(load_file(second / "model.safetensors")["w"], torch.zeros(2))
    with pytest.raises(SourceError, match="is not a folder"):
        without_pickles(folder / "config.json", kept)


def test_one_pickle_of_a_training_is_converted_to_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "mine.ckpt"
    torch.save({"epoch": 1, "state_dict": {"a": torch.arange(3)}}, path)
    assert convert_pickle(path) == tmp_path / "mine.safetensors"
    assert load_file(tmp_path / "mine.safetensors")["a"].tolist() == [0, 1, 2]
    with pytest.raises(SourceError, match=r"mine.safetensors exists already; remove it"):
        convert_pickle(path)


def test_one_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}, "callback": Path}, tmp_path / "mine.ckpt")
    with pytest.raises(SourceError, match="cannot be read as plain tensors"):
        convert_pickle(tmp_path / "mine.ckpt")
    assert not (tmp_path / "mine.safetensors").exists()
