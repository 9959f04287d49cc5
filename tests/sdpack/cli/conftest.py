from __future__ import annotations

from pathlib import Path

import pytest

from tests.sdpack.bundles import write_drawing_bundle


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDPACK_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def drawing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for a CPU that draws; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("cli") / "drawing"
    write_drawing_bundle(folder, name="drawing")
    return folder
