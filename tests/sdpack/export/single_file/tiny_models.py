"""Tiny models of every base, in the layout of single files, and folders without their weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import diffusers

from tests.e2e import families
from tests.sdpack.export.single_file import originals
from tests.sdpack.export.single_file.originals import Tensors

FLUX_WIDTH = 32
FLOW = ("sd3", "flux")


@dataclass(frozen=True)
class Tiny:
    """A tiny model: its diffusers folder, the same as a single file, and without its weights."""

    folder: Path
    file: Path
    configs: Path


MODELS: Mapping[str, tuple[str, Callable[[Path], Tensors]]] = {
    "sd1": ("sd", originals.stable_diffusion_1),
    "sd2": ("sd", originals.stable_diffusion_2),
    "sdxl": ("sdxl", originals.stable_diffusion_xl),
    "sd3": ("sd3", originals.stable_diffusion_3),
    "flux": ("flux dev", originals.flux),
}


def write_tiny(name: str, place: Path) -> Tiny:
    """Write a tiny model into a folder."""
    family, store = MODELS[name]
    scheduler = (
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        if name in FLOW
        else diffusers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1)
    )
    folder = families.write_model(place / "folder", family, scheduler)
    configs = place / "configs"
    shutil.copytree(folder, configs, ignore=shutil.ignore_patterns("*.safetensors"))
    return Tiny(folder, originals.write(store(folder), place / f"{name}.safetensors"), configs)


def index_of(folder: Path) -> dict[str, object]:
    """The contents of a pipeline's index."""
    return dict(json.loads((folder / "model_index.json").read_text()))
