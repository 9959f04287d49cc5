from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sdpack.errors import StoreError
from sdpack.store.limit import IN_USE
from sdpack.store.opening import open_store


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDPACK_CACHE", str(tmp_path / "cache"))
    for name in ("SDPACK_STORE", "SDPACK_CACHE_LIMIT"):
        monkeypatch.delenv(name, raising=False)


def write(folder: Path) -> None:
    (folder / "a").write_bytes(b"x" * 100)


def refuse(_: Path) -> None:
    raise AssertionError("it is in the shared store")


def test_the_environment_names_a_shared_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_store().make("graph", {"of": 1}, write).folder.is_relative_to(tmp_path / "cache")
    url = f"file://{tmp_path}/shared"
    assert open_store(url).find("graph", {"of": 2}) is None
    monkeypatch.setenv("SDPACK_STORE", url)
    open_store().make("graph", {"of": 2}, write)
    monkeypatch.setenv("SDPACK_CACHE", str(tmp_path / "other"))
    open_store().make("graph", {"of": 2}, refuse)
    monkeypatch.delenv("SDPACK_STORE")
    assert open_store(url).find("graph", {"of": 2}) is not None


def test_only_what_a_shared_store_has_too_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/shared"
    for number in range(4):
        open_store(url if number % 2 else None).make("graph", {"of": number}, write)
    open_store().make("graph", {"of": 4}, write)
    assert len(list(open_store().artifacts())) == 5
    monkeypatch.setenv("SDPACK_CACHE_LIMIT", "250B")
    with pytest.raises(StoreError, match="shared store; set SDPACK_STORE as well"):
        open_store()
    monkeypatch.setenv("SDPACK_STORE", url)
    clear_marks(tmp_path)
    open_store().make("graph", {"of": 5}, write)
    left = [artifact.inputs["of"] for artifact in open_store().artifacts()]
    assert sorted(left) == [0, 2, 4, 5]
    assert open_store().find("graph", {"of": 0}) is not None, "which publishes it"
    clear_marks(tmp_path)
    open_store().make("graph", {"of": 6}, write)
    left = [artifact.inputs["of"] for artifact in open_store().artifacts()]
    assert sorted(left) == [2, 4, 6]
    monkeypatch.setenv("SDPACK_CACHE_LIMIT", "much")
    with pytest.raises(StoreError, match="SDPACK_CACHE_LIMIT: 'much' is not a size"):
        open_store()


def clear_marks(tmp_path: Path) -> None:
    """Forget what this process used."""
    shutil.rmtree(tmp_path / "cache" / "store" / IN_USE, ignore_errors=True)
