"""The classes and configs of a pipeline: those of a base that comes with sdpack, or of a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdpack.errors import SourceError
from sdpack.export.pipeline_index import (
    CONFIG,
    DENOISER_FOLDERS,
    MODEL_INDEX,
    PipelineIndex,
    read_index,
)
from sdpack.export.sampler import SCHEDULER_CONFIG
from sdpack.runtime.tokenizer import CONFIG_FILE as TOKENIZER_CONFIG

SCHEDULER = "scheduler"
VAE = "vae"
TEXT_ENCODER, TOKENIZER = "text_encoder", "tokenizer"
BASES_FOLDER = Path(__file__).parent / "bases"
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """The classes and configs of a pipeline.

    Attributes:
        name: a base's name, or a folder's path.
        index: the contents of its model_index.json.
        configs: the config of each component.
    """

    name: str
    index: Config
    configs: Mapping[str, Config]

    @property
    def pipeline(self) -> str:
        """The pipeline's class."""
        return PipelineIndex(Path(self.name), self.index).class_name

    @property
    def components(self) -> tuple[str, ...]:
        """The components that sdpack uses."""
        return PipelineIndex(Path(self.name), self.index).used

    @property
    def denoiser(self) -> str:
        """The name of the denoiser's component.

        Raises:
            SourceError: there is none.
        """
        for name in DENOISER_FOLDERS:
            if name in self.components:
                return name
        raise SourceError(f"{self.name} names no {' or '.join(DENOISER_FOLDERS)}; give another")

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """The text encoders' components."""
        return tuple(name for name in self.components if name.startswith(TEXT_ENCODER))

    def class_name(self, component: str) -> str:
        """The class of a component."""
        return str(self.index[component][1])

    def without(self, component: str) -> Layout:
        """Return a copy that lacks a text encoder and its tokenizer."""
        dropped = (component, tokenizer_of(component))
        index = {**self.index, **{name: [None, None] for name in dropped}}
        kept = {name: config for name, config in self.configs.items() if name not in dropped}
        return replace(self, index=index, configs=kept)

    def having(self, component: str, config: Config, class_name: str | None = None) -> Layout:
        """Return a copy with another config, and maybe another class, of a component."""
        library, known = self.index[component]
        index = {**self.index, component: [library, class_name or known]}
        return replace(self, index=index, configs={**self.configs, component: config})

    def write(self, folder: Path) -> None:
        """Write its index and configs into a folder, as diffusers lays them out."""
        names = {MODEL_INDEX: self.index} | {
            f"{name}/{config_file(name)}": config for name, config in self.configs.items()
        }
        for name, values in names.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values, indent=1) + "\n")


def tokenizer_of(text_encoder: str) -> str:
    """The component of a text encoder's tokenizer."""
    return text_encoder.replace(TEXT_ENCODER, TOKENIZER)


def config_file(component: str) -> str:
    """The name of a component's config."""
    if component == SCHEDULER:
        return SCHEDULER_CONFIG
    return TOKENIZER_CONFIG if component.startswith(TOKENIZER) else CONFIG


def base_layout(name: str) -> Layout:
    """Return the layout of one of the bases that come with sdpack."""
    values = json.loads((BASES_FOLDER / f"{name}.json").read_text())
    index = values.pop("model_index")
    return Layout(name, index, values)


def folder_layout(folder: Path) -> Layout:
    """Return the layout of a diffusers folder; it needs no weights.

    Raises:
        SourceError: the index or a config is damaged, or the pipeline needs a component that sdpack
            does not support.
    """
    index = read_index(folder)
    index.warnings()
    configs = {
        name: read_config(folder / name / config_file(name))
        for name in index.used
        if (folder / name / config_file(name)).is_file()
    }
    kept = {
        name: value
        for name, value in index.values.items()
        if name in index.used or not isinstance(value, list)
    }
    return Layout(str(folder), kept, configs)


def read_config(path: Path) -> Config:
    """Read a config.

    Raises:
        SourceError: it is missing or damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise SourceError(f"{path} cannot be read ({cause}); restore it") from cause
    if not isinstance(values, dict):
        raise SourceError(f"{path} is not a JSON object; restore it")
    return values
