from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from diffusers.loaders import single_file_utils

from tests.sdpack.export.single_file import originals
from tests.sdpack.export.single_file.tiny_models import FLUX_WIDTH, Tiny, write_tiny


@pytest.fixture(autouse=True)
def _flux_of_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_file_utils, "torch", originals.any_width(FLUX_WIDTH))


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDPACK_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tiny]:
    """A tiny model, written once."""
    return cache(lambda name: write_tiny(name, tmp_path_factory.mktemp(name)))
