"""Tiny models of every base, in the layout of single files, and folders without their weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import diffusers
import pytest
from diffusers.loaders import single_file_utils

from tests.e2e import families
from tests.sdpack.export.single_file import originals
from tests.sdpack.export.single_file.originals import Tensors

FLUX_WIDTH = 32
WEIGHTS = ("*.safetensors",)


@dataclass(frozen=True)
class Tiny:
    """A tiny model: its diffusers folder, the same as a single file, and without its weights."""

    folder: Path
    file: Path
    configs: Path


Store = Callable[[Path], Tensors]
MODELS: Mapping[str, tuple[str, Store]] = {
    "sd1": ("sd", originals.stable_diffusion_1),
    "sd2": ("sd", originals.stable_diffusion_2),
    "sdxl": ("sdxl", originals.stable_diffusion_xl),
    "sd3": ("sd3", originals.stable_diffusion_3),
    "flux": ("flux dev", originals.flux),
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tiny]:
    """A tiny model, written once."""
    made: dict[str, Tiny] = {}

    def model(name: str) -> Tiny:
        if name not in made:
            place = tmp_path_factory.mktemp(name)
            family, store = MODELS[name]
            scheduler = (
                diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
                if name in ("sd3", "flux")
                else diffusers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1)
            )
            folder = families.write_model(place / "folder", family, scheduler)
            configs = place / "configs"
            shutil.copytree(folder, configs, ignore=shutil.ignore_patterns(*WEIGHTS))
            file = originals.write(store(folder), place / f"{name}.safetensors")
            made[name] = Tiny(folder, file, configs)
        return made[name]

    return model


@pytest.fixture(autouse=True)
def _flux_of_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_file_utils, "torch", originals.any_width(FLUX_WIDTH))


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDPACK_CACHE", str(tmp_path / "cache"))


def index_of(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "model_index.json").read_text()))
