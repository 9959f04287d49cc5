"""The real hub client, offline, on a cache laid out as it lays it out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

# Documented as public, but its package does not mark it as exported.
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]
from sdpack.documents.source import Source
from sdpack.errors import SourceError
from sdpack.export.source import (
    downloaded_pipeline,
    hub_source,
    is_here,
    local_folder,
    pipeline_folder,
)

COMMIT = "0123456789" * 4


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds owner/name at COMMIT, and a client that is offline."""
    hub = tmp_path / "hub"
    snapshot = hub / "models--owner--name" / "snapshots" / COMMIT
    (snapshot / "unet").mkdir(parents=True)
    (snapshot / "unet" / "config.json").write_text("{}")
    (snapshot / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    return snapshot


def source(**changes: str) -> Source:
    return Source(**{"hub": "owner/name", "revision": COMMIT, **changes})


def test_a_path_counts_from_the_catalog(tmp_path: Path) -> None:
    assert local_folder(Source(path=Path("parts/x")), tmp_path) == tmp_path / "parts" / "x"


def test_a_revision_that_is_here_needs_no_network(cached: Path) -> None:
    assert local_folder(source(), cached) == cached
    assert local_folder(source(subfolder="unet"), cached) == cached / "unet"


def test_another_revision_is_not_taken_for_it(cached: Path) -> None:
    with pytest.raises(SourceError, match="not on this machine"):
        local_folder(source(revision="f" * 40), cached)


def test_a_checkpoint_without_its_weights_is_none(cached: Path) -> None:
    (cached / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(SourceError, match=r"fetched only in part.* only pickled weights"):
        local_folder(source(subfolder="unet"), cached)


def test_a_name_is_pinned_to_what_main_is(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub_source("owner/name") == source(), "the only revision that is here"
    reference = cached.parents[1] / "refs" / "main"
    reference.parent.mkdir()
    reference.write_text("f" * 40)
    assert hub_source("owner/name").revision == "f" * 40
    with pytest.raises(SourceError, match="not on this machine and the hub cannot be reached"):
        hub_source("owner/other")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def gone(*_: object, **__: object) -> None:
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", gone)
    with pytest.raises(SourceError, match="no such repository, or it is private"):
        hub_source("owner/name")


def test_pickles_are_read_only_where_a_catalog_asks(
    cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    monkeypatch.setenv("SDPACK_CACHE", str(tmp_path / "own"))
    (cached / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"w": torch.ones(2)}, cached / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(SourceError, match="allow_pickle"):
        local_folder(source(subfolder="unet"), cached)
    asked = Source(hub="owner/name", revision=COMMIT, subfolder="unet", allow_pickle=True)
    folder = local_folder(asked, cached)
    assert load_file(folder / "diffusion_pytorch_model.safetensors")["w"].tolist() == [1, 1]
    assert not list(folder.glob("*.bin"))
    assert local_folder(asked, cached) == folder
    torch.save({"w": torch.zeros(3)}, cached / "unet" / "diffusion_pytorch_model.bin")
    again = local_folder(asked, cached)
    assert load_file(again / "diffusion_pytorch_model.safetensors")["w"].tolist() == [0, 0, 0]
    assert not folder.exists(), "what was made of the pickle before is of no use"
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"model\.bin is not a folder"):
        local_folder(Source(path=Path("model.bin"), allow_pickle=True), tmp_path)


def test_a_folder_the_repository_lacks(cached: Path) -> None:
    with pytest.raises(SourceError, match="no folder 'vae'"):
        local_folder(source(subfolder="vae"), cached)


@pytest.mark.parametrize(
    ("error", "said"),
    [(GatedRepoError, "accept its licence"), (RepositoryNotFoundError, "set HF_TOKEN")],
)
def test_what_the_hub_refuses_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], said: str
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise error.__new__(error)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(SourceError, match=said):
        local_folder(source(), Path())


@pytest.mark.parametrize("error", [RuntimeError("proxy"), TimeoutError(), OSError("disk full")])
def test_whatever_the_client_raises_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(SourceError, match=r"owner/name.* cannot be fetched: "):
        local_folder(source(), Path())


def test_of_a_pipeline_only_what_its_index_names_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "image_encoder": [None, None],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    names = [
        "model_index.json",
        "v1-5-pruned.safetensors",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "safety_checker/model.safetensors",
        "image_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
    ]
    fetched: list[str] = []

    def download(_: str, revision: str, **patterns: Any) -> str:
        fetched.extend(filter_repo_objects(names, **patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert pipeline_folder(source()) == tmp_path
    assert fetched == ["model_index.json", *names[2:4]]
    (tmp_path / "model_index.json").unlink()
    with pytest.raises(SourceError, match=r"is not a diffusers pipeline: it has no model_index"):
        pipeline_folder(source())


def test_a_source_is_here_only_with_all_the_weights_that_would_be_fetched(cached: Path) -> None:
    unet, here = cached / "unet", source(subfolder="unet")
    plain = unet / "diffusion_pytorch_model.safetensors"
    assert is_here(here, cached)
    plain.rename(unet / "diffusion_pytorch_model.fp16.safetensors")
    assert not is_here(here, cached), "the plain weights would be fetched"
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": dict(zip("ab", shards, strict=True))}
    (unet / "model.safetensors.index.json").write_text(json.dumps(index))
    (unet / shards[0]).touch()
    assert not is_here(here, cached), "the second shard is missing"
    (unet / shards[1]).touch()
    assert is_here(here, cached)
    for damaged in ("{", "[]", '{"weight_map": 3}'):
        (unet / "model.safetensors.index.json").write_text(damaged)
        assert not is_here(here, cached)
    assert not is_here(source(subfolder="vae"), cached)


def test_a_pipeline_is_here_only_with_all_its_components(cached: Path) -> None:
    assert downloaded_pipeline(source()) is None
    index = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (cached / "model_index.json").write_text(json.dumps(index))
    assert downloaded_pipeline(source()) is None
    (cached / "vae").mkdir()
    (cached / "vae" / "config.json").write_text("{}")
    assert downloaded_pipeline(source()) is None
    (cached / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    assert downloaded_pipeline(source()) == cached


def test_weights_in_half_the_bytes_are_fetched_where_there_are_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors"]

    def download(_: str, revision: str, **patterns: Any) -> str:
        for name in filter_repo_objects(names, **patterns):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    folder = local_folder(source(subfolder="unet"), Path())
    assert sorted(path.name for path in folder.iterdir()) == [Path(name).name for name in names]
    shutil.rmtree(folder)
    index = {"unet": ["diffusers", "UNet2DConditionModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    assert len(list((pipeline_folder(source()) / "unet").iterdir())) == 2


def test_only_one_copy_of_the_weights_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "vae/config.json",
    ]
    fetched: list[str] = []

    def download(_: str, revision: str, **patterns: Any) -> str:
        assert revision == COMMIT
        fetched.extend(filter_repo_objects(names, **patterns))
        return str(Path(__file__).parents[1])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    local_folder(source(subfolder="export"), Path())
    assert fetched == []
    with pytest.raises(SourceError):
        local_folder(source(subfolder="unet"), Path())
    assert fetched == names[:2]
