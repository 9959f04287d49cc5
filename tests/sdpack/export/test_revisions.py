"""Repositories without a revision are resolved once, and locked."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sdpack.documents.catalog_files import find_catalog, read_catalog
from sdpack.errors import SourceError
from sdpack.export import revisions
from sdpack.export.revisions import LOCK_FILE, pinned

from tests.hub_server import COMMIT, Hub, serving
from tests.sdpack.export.test_hub_outline import NAME, run


@pytest.fixture
def hub(models: Callable[[str], Path]) -> Iterator[Hub]:
    with serving({NAME: models("sdxl")}) as hub:
        yield hub


def unpinned(folder: Path) -> Path:
    """A catalog of the hub's model whose parts have no revision."""
    parts: dict[str, Any] = {
        name: {"hub": NAME, "subfolder": name}
        for name in ("unet", "vae", "scheduler", "text_encoder", "text_encoder_2")
    }
    encoders = {
        name: {
            "source": parts[f"text_encoder{suffix}"],
            "tokenizer": {"hub": NAME, "subfolder": f"tokenizer{suffix}"},
            "licence": "MIT",
            "states": name,
            "parameters": 1000,
        }
        for name, suffix in (("a", ""), ("b", "_2"))
    }
    own = {"licence": "MIT", "latents": "l", "parameters": 1000}
    here = find_catalog("sd15")
    catalog = {
        "schema": 1,
        "name": "unpinned",
        "description": "parts without a revision",
        "image_size": 64,
        "text_encoders": encoders,
        "denoisers": {"d": {"source": parts["unet"], "states": ["a", "b"], **own}},
        "decoders": {"v": {"source": parts["vae"], **own}},
        "sampling": {"scheduler": parts["scheduler"], "steps": 2, "guidance_scale": 1.0},
        "quality": {
            key: str(here.path(getattr(here.catalog.quality, key)))
            for key in ("prompts", "calibration", "samples")
        },
    }
    folder.mkdir(exist_ok=True)
    (folder / "catalog.yaml").write_text(yaml.safe_dump(catalog))
    return folder


def plan(hub: Hub, home: Path, catalog: Path, **more: str) -> subprocess.CompletedProcess[str]:
    words = ("plan", "--profile", "4gb-gpu", "--catalog", str(catalog))
    return run(hub, home, *words, **more)


def test_the_current_revision_is_locked_beside_the_catalog(hub: Hub, tmp_path: Path) -> None:
    catalog = unpinned(tmp_path / "mine")
    done = plan(hub, tmp_path / "home", catalog)
    assert done.returncode == 0, done.stderr
    assert json.loads((catalog / LOCK_FILE).read_text()) == {NAME: COMMIT}


def test_a_plan_needs_no_revision_where_the_hub_is_out_of_reach(hub: Hub, tmp_path: Path) -> None:
    catalog = unpinned(tmp_path / "mine")
    done = plan(hub, tmp_path / "home", catalog, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert not (catalog / LOCK_FILE).exists()
    words = ("build", "--profile", "cpu-2gb", "--catalog", str(catalog), "--out", str(tmp_path))
    built = run(hub, tmp_path / "home", *words, HF_HUB_OFFLINE="1")
    assert built.returncode != 0
    (line,) = built.stderr.splitlines()
    assert line.startswith(f"Error: {NAME} is not on this machine")


def test_a_locked_revision_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unasked(name: str) -> None:
        raise AssertionError(name)

    monkeypatch.setattr(revisions, "hub_source", unasked)
    catalog, earlier = unpinned(tmp_path / "mine"), "a" * 40
    (catalog / LOCK_FILE).write_text(json.dumps({NAME: earlier}))
    sources = [source for _, source in pinned(read_catalog(catalog)).sources()]
    assert {source.revision for source in sources} == {earlier}


def test_a_catalog_with_revisions_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    located = find_catalog("sdxl")
    assert pinned(located) is located


def test_a_damaged_lock_is_named(tmp_path: Path) -> None:
    catalog = unpinned(tmp_path / "mine")
    (catalog / LOCK_FILE).write_text("[")
    with pytest.raises(SourceError, match=LOCK_FILE):
        pinned(read_catalog(catalog))
