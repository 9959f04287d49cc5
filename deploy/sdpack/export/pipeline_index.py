"""The components in a diffusers pipeline's model_index.json: used, ignored or unsupported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sdpack.domain.placement import TEXT_ENCODERS
from sdpack.errors import SourceError
from sdpack.export.foreign_weights import held_weights, loose_weights

MODEL_INDEX = "model_index.json"
CONFIG = "config.json"  # every model's folder has one
DENOISER_FOLDERS = ("unet", "transformer")
_TEXTS = [role.value for role in TEXT_ENCODERS]
_TOKENIZERS = [name.replace("text_encoder", "tokenizer") for name in _TEXTS]
USED = (*_TEXTS, *_TOKENIZERS, *DENOISER_FOLDERS, "vae", "scheduler")
# Components that text-to-image does not depend on, and the effect of leaving them out.
SPARE: Mapping[str, str] = {
    "safety_checker": "images are not checked",
    "feature_extractor": "it prepares images for other components",
    "image_encoder": "IP-Adapters are not supported",
    "watermark": "images get no watermark",
}
# Text-to-image pipelines; if they have an image encoder, it is for IP-Adapters.
TEXT_TO_IMAGE = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusion3Pipeline",
    "PixArtAlphaPipeline",
    "PixArtSigmaPipeline",
    "FluxPipeline",
    "ChromaPipeline",
    "Flux2KleinPipeline",
    "ZImagePipeline",
    "SanaPipeline",
    "SanaSprintPipeline",
    "Lumina2Pipeline",
    "QwenImagePipeline",
    "OvisImagePipeline",
    "LatentConsistencyModelPipeline",
)
# Components that images depend on, by the start of their names.
NEEDED: Mapping[str, str] = {
    "controlnet": "a ControlNet",
    "adapter": "a T2I-Adapter",
    "image_encoder": "an image encoder",
    "t2i_adapter": "a T2I-Adapter",
    "ip_adapter": "an IP-Adapter",
    "prior": "a prior, which makes the denoiser's embeddings",
    "decoder": "a second stage, which draws from embeddings",
    "movq": "a decoder of another kind than sdpack supports",
    "vqvae": "a decoder of another kind than sdpack supports",
    "vqgan": "a decoder of another kind than sdpack supports",
    "bert": "a text encoder of another kind than sdpack supports",
    "refiner": "a refiner, which continues from another model's latents",
    "upscaler": "an upscaler",
    "low_res_scheduler": "the scheduler of an upscaler",
    "image_normalizer": "the normalization of an encoded image",
    "image_noising_scheduler": "the noise of an encoded image",
    "depth_estimator": "a depth estimator",
    "motion_adapter": "a motion module",
    "unet_2": "a second denoiser",
    "transformer_2": "a second denoiser",
}
UNKNOWN = "an unknown component"
PARTS_ONLY = "sdpack reads weights only in the folders of the pipeline's components"
# Those of NEEDED that are added to a text-to-image model, which also works without them.
ADDED = ("controlnet", "adapter", "t2i_adapter", "ip_adapter", "motion_adapter", "refiner")
# What a folder beside the components holds, by the start of its model's class.
BESIDE: Mapping[str, str] = {
    "ControlNet": "a ControlNet",
    "MultiAdapter": "a T2I-Adapter",
    "T2IAdapter": "a T2I-Adapter",
    "MotionAdapter": "a motion module",
    "CLIPVision": "an image encoder",
    "UNet": "a denoiser",
    "Autoencoder": "a VAE",
}


@dataclass(frozen=True)
class PipelineIndex:
    """The components of a pipeline.

    Attributes:
        path: path of the index, for messages.
        values: its contents.
    """

    path: Path
    values: Mapping[str, Any]

    @cached_property
    def class_name(self) -> str:
        """The pipeline's class; "" if the index names none."""
        named = self.values.get("_class_name")
        return str(named[-1] if isinstance(named, list) and named else named or "")

    @cached_property
    def components(self) -> tuple[str, ...]:
        """The components that exist, in the index's order."""
        return tuple(name for name in self.values if self.has(name))

    def has(self, component: str) -> bool:
        """Whether the pipeline has this component."""
        named = self.values.get(component)
        return isinstance(named, list) and len(named) == 2 and named[0] is not None

    @property
    def used(self) -> tuple[str, ...]:
        """The components sdpack builds from."""
        return tuple(name for name in self.components if name in USED)

    def warnings(self) -> list[str]:
        """Return one line for each component that is left out, none of which changes the images.

        Raises:
            SourceError: the images depend on an unsupported component.
        """
        unused = [name for name in self.components if name not in USED]
        spare = [name for name in unused if self._is_spare(name)]
        needed = [name for name in unused if name not in spare]
        if needed:
            listed = ", ".join(f"{name} ({self._kind(name)})" for name in needed)
            remedy = (
                "the text-to-image pipeline without it, such as one saved without that component"
                if all(name.startswith(ADDED) for name in needed)
                else "a text-to-image pipeline of a family that sdpack supports (docs/models.md)"
            )
            raise SourceError(
                f"{self.path}: the pipeline needs {listed}, which sdpack does not support; give "
                f"{remedy}"
            )
        if self.values.get("requires_aesthetics_score"):
            raise SourceError(
                f"{self.path}: requires_aesthetics_score is true, so this is a refiner, which "
                "continues from another model's latents; sdpack does not support refiners: give "
                "the base model"
            )
        lines = [f"{name} is left out: {SPARE[name]}" for name in spare]
        if self.class_name and self.class_name not in TEXT_TO_IMAGE:
            lines.append(f"{self.class_name}: only text-to-image is supported")
        return [f"{self.path}: {line}" for line in lines]

    def unnamed(self, folder: Path) -> list[str]:
        """Return one line for each model in a pipeline's folder that its index does not name.

        That is a folder, or a file of weights beside the components or in a folder of its own.
        """
        folders = [path for path in sorted(folder.glob("*/")) if path.name not in self.values]
        models = [path for path in folders if (path / CONFIG).is_file()]
        files = [
            (path.relative_to(folder), kind)
            for beside in (folder, *(path for path in folders if path not in models))
            for path, kind in loose_weights(beside)
        ]
        return [
            *(
                f"{self.path} does not name {path.name}/{_kind_of(path)}, which is left out"
                for path in models
            ),
            *(
                f"{self.path.parent / path} is left out: {kind or PARTS_ONLY}"
                for path, kind in files
            ),
        ]

    def _is_spare(self, name: str) -> bool:
        plain = self.class_name in TEXT_TO_IMAGE or name != "image_encoder"
        return name in SPARE and plain

    def _kind(self, name: str) -> str:
        kind = next((kind for begin, kind in NEEDED.items() if name.startswith(begin)), UNKNOWN)
        class_name = self.values[name][1]
        return f"{kind}, {class_name}" if isinstance(class_name, str) else kind


def _kind_of(folder: Path) -> str:
    """Say what the model in a folder is, in parentheses; "" if that is not known."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        name = str(config.get("_class_name") or config["architectures"][0])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ""
    kind = next((kind for begin, kind in BESIDE.items() if name.startswith(begin)), None)
    return f" ({kind}, {name})" if kind else f" ({name})"


def _instead(folder: Path) -> str:
    """Say what a folder without an index is: one model, or loose files of weights."""
    if (folder / CONFIG).is_file():
        return f": the folder holds a single model{_kind_of(folder)}, not a pipeline"
    held = held_weights(folder)
    return f": the folder holds {held}" if held else ""


def read_index(folder: Path, name: str | None = None) -> PipelineIndex:
    """Read the index of a pipeline's folder.

    Args:
        folder: the folder.
        name: name for the folder in messages, if it is a cached copy.

    Raises:
        SourceError: the index is missing or damaged.
    """
    path = folder / MODEL_INDEX
    shown = Path(name) / MODEL_INDEX if name else path
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise SourceError(
            f"{shown} cannot be read ({cause.strerror}){_instead(folder)}; give the folder of a "
            "diffusers pipeline, or list its parts in a catalog"
        ) from cause
    except ValueError as cause:
        raise SourceError(f"{shown} is not JSON ({cause}); restore it") from cause
    if not isinstance(values, dict):
        raise SourceError(f"{shown} is not a JSON object; restore it")
    return PipelineIndex(shown, values)
