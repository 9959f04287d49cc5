from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file
from sdpack.errors import SourceError
from sdpack.export.single_file.embeddings import add_embeddings
from sdpack.export.single_file.layout import folder_layout
from sdpack.export.tokenizer import convert_tokenizer
from sdpack.runtime.tokenizer import PromptTokenizer

from tests.sdpack.export.single_file.tiny_models import Tiny

Model = Callable[[str], Tiny]


def copied(tiny: Tiny, target: Path) -> Path:
    return Path(shutil.copytree(tiny.folder, target))


def added(folder: Path, *files: Path) -> None:
    add_embeddings(folder, folder_layout(folder), files)


def rows(folder: Path, class_name: str, count: int) -> torch.Tensor:
    encoder = getattr(transformers, class_name).from_pretrained(folder)
    return torch.as_tensor(encoder.get_input_embeddings().weight[-count:].detach())


def test_a_token_of_several_vectors_is_added_as_diffusers_adds_it(
    tiny: Model, tmp_path: Path
) -> None:
    folder = copied(tiny("sd1"), tmp_path / "m")
    vectors = torch.randn(2, 16)
    save_file({"emb_params": vectors}, tmp_path / "mystyle.safetensors")
    save_file({"<cat>": vectors[0]}, tmp_path / "other.safetensors")
    added(folder, tmp_path / "mystyle.safetensors", tmp_path / "other.safetensors")
    found = rows(folder / "text_encoder", "CLIPTextModel", 3)
    assert torch.equal(found, torch.cat([vectors, vectors[:1]]))
    assert json.loads((folder / "text_encoder" / "config.json").read_text())["vocab_size"] == 523
    convert_tokenizer(folder / "tokenizer", tmp_path / "converted")
    ids = PromptTokenizer(tmp_path / "converted").ids(["a mystyle <cat>"])[0].tolist()
    assert ids[2:5] == [520, 521, 522]


def test_both_encoders_of_xl_get_their_vectors(tiny: Model, tmp_path: Path) -> None:
    folder = copied(tiny("sdxl"), tmp_path / "m")
    one, two = torch.randn(1, 16), torch.randn(1, 24)
    save_file({"clip_l": one, "clip_g": two}, tmp_path / "mine.safetensors")
    added(folder, tmp_path / "mine.safetensors")
    assert torch.equal(rows(folder / "text_encoder", "CLIPTextModel", 1), one)
    second = rows(folder / "text_encoder_2", "CLIPTextModelWithProjection", 1)
    assert torch.equal(second, two)


def test_embeddings_of_other_models_are_refused(tiny: Model, tmp_path: Path) -> None:
    folder = copied(tiny("sd1"), tmp_path / "m")
    path = tmp_path / "mine.safetensors"
    save_file({"emb_params": torch.ones(1, 24)}, path)
    with pytest.raises(SourceError, match=r"mine.safetensors does not fit text_encoder"):
        added(folder, path)
    save_file({"clip_l": torch.ones(1, 16), "clip_g": torch.ones(1, 24)}, path)
    with pytest.raises(SourceError, match=r"holds clip_g, clip_l, so it is not for this model"):
        added(folder, path)
    save_file({"emb_params": torch.ones(1, 16)}, path)
    with pytest.raises(SourceError, match=r"has no clip_l, so it is not for this model"):
        added(copied(tiny("sdxl"), tmp_path / "xl"), path)
    with pytest.raises(SourceError, match=r"not for a FluxPipeline; leave out --embedding"):
        added(tiny("flux").folder, path)
    with pytest.raises(SourceError, match=r"mine.pt is a pickle"):
        added(folder, tmp_path / "mine.pt")


def test_without_embeddings_nothing_is_written(tiny: Model) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny("sd1").folder.rglob("*")}
    added(tiny("sd1").folder)
    assert {path: path.stat().st_mtime_ns for path in tiny("sd1").folder.rglob("*")} == before
