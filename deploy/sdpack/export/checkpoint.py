"""Checkpoints: config, class and tensor shapes of a folder of weights, and loading it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from sdpack.errors import SourceError
from sdpack.export.adapter_file import adapter_content
from sdpack.export.finite import check_finite
from sdpack.export.foreign_weights import (
    POINTER,
    by_keys,
    explain_no_config,
    explain_no_weights,
    is_pointer,
)
from sdpack.export.frame_decoder import read_numbers
from sdpack.export.layers_read import is_unread
from sdpack.export.lora import check_fits, merge
from sdpack.export.model_loading import ModelFiles
from sdpack.export.pipeline_index import CONFIG
from sdpack.export.single_file.names import explain_file
from sdpack.store.artifacts import digest, file_sha256

if TYPE_CHECKING:
    from torch import nn

WEIGHT_FILES = ("model.safetensors", "diffusion_pytorch_model.safetensors")
# What hubs call copies of the same weights in other types: taken in this order, where there is
# nothing else. Other variants, as non_ema, are other weights.
VARIANTS = ("fp32", "fp16", "bf16")
TEXT_ENCODER_CLASSES = (
    "CLIPTextModel",
    "CLIPTextModelWithProjection",
    "T5EncoderModel",
    "BertModel",
    "DistilBertModel",
    "RobertaModel",
    "Qwen3Model",
    "Gemma2Model",
    "Qwen2_5_VLTextModel",
)
DENOISER_CLASSES = (
    "UNet2DConditionModel",
    "SD3Transformer2DModel",
    "PixArtTransformer2DModel",
    "FluxTransformer2DModel",
    "ChromaTransformer2DModel",
    "Flux2Transformer2DModel",
    "ZImageTransformer2DModel",
    "SanaTransformer2DModel",
    "Lumina2Transformer2DModel",
    "QwenImageTransformer2DModel",
    "OvisImageTransformer2DModel",
)
DECODER_CLASSES = (
    "AutoencoderKL",
    "AutoencoderTiny",
    "AutoencoderKLFlux2",
    "AutoencoderDC",
    "AutoencoderKLQwenImage",
)
EXPORTED = (*TEXT_ENCODER_CLASSES, *DENOISER_CLASSES, *DECODER_CLASSES)
IDENTITY = ("architectures", "model_type", "_class_name", "quantization_config")  # of the whole
TEXT_CONFIG = "text_config"  # key of the config of a model that also reads images
MANY = 2**31  # parameters, from which on weights stay in their files
MERGE_REVISION = 2  # of what merging does; a change makes graphs of merged weights again
UNUSED_WEIGHTS = ("pooler.",)  # tensors that models of the same class may come without
ENCODING = ("encoder.", "quant_conv.")  # of an autoencoder
# Of language models: what comes after the encoder, and what reads images.
HEADS = ("decoder.", "lm_head.", "cls.", "vocab_", "visual.", "model.visual.")
# What hubs call the same weights: whole models of which only the encoder is needed, and the class
# PixArt's transformers had before they had their own.
ALIASES = {
    "T5ForConditionalGeneration": "T5EncoderModel",
    "T5Model": "T5EncoderModel",
    "BertForMaskedLM": "BertModel",
    "BertForPreTraining": "BertModel",
    "DistilBertForMaskedLM": "DistilBertModel",
    "RobertaForMaskedLM": "RobertaModel",
    "Qwen3ForCausalLM": "Qwen3Model",
    "Gemma2ForCausalLM": "Gemma2Model",
    "Qwen2_5_VLForConditionalGeneration": "Qwen2_5_VLTextModel",
}


@dataclass(frozen=True)
class Checkpoint:
    """A transformers or diffusers folder with a config and safetensors files.

    Attributes:
        loras: LoRA files or folders to merge into it, each with its scale.
        known_shapes: the shape of each tensor, if the weights are not on this machine.
        layers: of a text encoder, the number of first layers that are read; None for all, and the
            final norm.
    """

    folder: Path
    loras: tuple[tuple[Path, float], ...] = ()
    known_shapes: Mapping[str, tuple[int, ...]] | None = field(default=None, compare=False)
    layers: int | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The contents of config.json; of a model that also reads images, its text model's too.

        Raises:
            SourceError: it is missing or not a JSON object.
        """
        if self.folder.is_file():
            raise SourceError(explain_file(self.folder))
        path = self.folder / CONFIG
        try:
            values = json.loads(path.read_text())
        except FileNotFoundError as cause:
            raise SourceError(explain_no_config(self.folder, CONFIG)) from cause
        except (OSError, ValueError) as cause:
            raise SourceError(f"{path} cannot be read ({cause}); restore the checkpoint") from cause
        if not isinstance(values, dict):
            raise SourceError(f"{path} is not a JSON object; restore the checkpoint")
        nested = values.get(TEXT_CONFIG)
        of_text = nested if isinstance(nested, dict) else {}
        return values | {key: of_text[key] for key in of_text if key not in IDENTITY}

    @cached_property
    def class_name(self) -> str:
        """Its transformers or diffusers class.

        Raises:
            SourceError: the config names none, or one that sdpack cannot export.
        """
        config = self.config
        name = config.get("_class_name") or (config.get("architectures") or [None])[0]
        name = ALIASES.get(str(name), name)
        if name == "Transformer2DModel" and config.get("norm_type") == "ada_norm_single":
            name = "PixArtTransformer2DModel"
        if name not in EXPORTED:
            raise SourceError(
                f"{self.folder / CONFIG}: sdpack cannot export the class {name!r}; "
                f"it exports {', '.join(EXPORTED)}"
            )
        return str(name)

    @cached_property
    def weight_files(self) -> list[Path]:
        """Its safetensors files: one, or all shards in its index; without other variants.

        Raises:
            SourceError: there are none, or a shard is missing.
        """
        return self._weights[1]

    @cached_property
    def _weights(self) -> tuple[str | None, list[Path]]:
        """The variant to load (None for the plain name) and its files."""
        for variant in (None, *VARIANTS):
            for name in (_variant_name(name, variant) for name in WEIGHT_FILES):
                if (self.folder / name).is_file():
                    return variant, [self.folder / name]
            for name in (_index_name(name, variant) for name in WEIGHT_FILES):
                if (self.folder / name).is_file():
                    return variant, self._shards(self.folder / name)
        raise SourceError(explain_no_weights(self.folder, WEIGHT_FILES, VARIANTS))

    def _shards(self, index: Path) -> list[Path]:
        try:
            names = set(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as cause:
            raise SourceError(f"{index} cannot be read ({cause!r}); restore it") from cause
        shards = sorted(self.folder / name for name in names)
        missing = [path for path in shards if not path.is_file()]
        if missing:
            raise SourceError(f"{missing[0]} is missing; restore it")
        return shards

    @property
    def stored_numbers(self) -> int:
        """How many numbers the files hold, from the files' headers alone.

        Raises:
            SourceError: a file is truncated or damaged.
        """
        return sum(math.prod(shape) for _, shape in self.shapes())

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield name and shape of every tensor, from the files' headers alone.

        Raises:
            SourceError: a file is truncated or damaged.
        """
        if self.known_shapes is not None:
            yield from self.known_shapes.items()
            return
        for path in self.weight_files:
            try:
                with safe_open(path, "np") as weights:
                    for name in weights.keys():  # noqa: SIM118 (it is not a dict)
                        yield name, tuple(weights.get_slice(name).get_shape())
            except (SafetensorError, OSError) as cause:
                if is_pointer(path):
                    raise SourceError(f"{path} is {POINTER}") from cause
                raise SourceError(f"{path} cannot be read ({cause}); restore it") from cause

    def check_readable(self) -> None:
        """Check, from the files' headers alone, that the weights are undamaged and unquantized.

        Raises:
            SourceError: they are not, or have the keys of another program, which the message names.
        """
        found = by_keys([name for name, _ in self.shapes()])
        if found is not None:
            raise SourceError(f"{self.folder} holds {found}")
        quantized = self.config.get("quantization_config")
        if quantized:
            method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
            raise SourceError(
                f"{self.folder / CONFIG}: its weights are quantized ({method}); give the "
                "unquantized ones, which sdpack quantizes itself"
            )

    @cached_property
    def parameters(self) -> int:
        """Number of parameters that are exported.

        Excludes an autoencoder's encoder, everything after a language model's encoder, and layers
        that are not read.
        """
        return sum(size for name, size in self._sizes() if not self._is_unread(name))

    def read_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield name and shape of every tensor that is exported, as `shapes` does."""
        for name, shape in self.shapes():
            if not name.startswith(self._unexported) and not self._is_unread(name):
                yield name, shape

    @cached_property
    def unread_parameters(self) -> int:
        """Number of parameters of a text encoder's layers that are not read."""
        return sum(size for _, size in self._sizes()) - self.parameters

    def _sizes(self) -> Iterator[tuple[str, int]]:
        """Yield name and size of every tensor, without heads and an autoencoder's encoder."""
        is_for_videos = self.class_name == "AutoencoderKLQwenImage"
        for name, shape in self.shapes():
            if not name.startswith(self._unexported):
                yield name, read_numbers(name, shape) if is_for_videos else math.prod(shape)

    @property
    def _unexported(self) -> tuple[str, ...]:
        """Prefixes of tensors that are not exported: an autoencoder's encoder, or heads."""
        return ENCODING if self.class_name.startswith("Autoencoder") else HEADS

    def _is_unread(self, name: str) -> bool:
        return self.layers is not None and is_unread(name, self.layers)

    @cached_property
    def content(self) -> str:
        """One hash of config, weights and LoRAs."""
        files = [self.folder / CONFIG, *self.weight_files]
        own = {path.name: file_sha256(path) for path in files}
        if not self.loras:
            return digest(own)
        merged = [[adapter_content(source), scale] for source, scale in self.loras]
        return digest({"own": own, "merged": merged, "revision": MERGE_REVISION})

    def load(self) -> nn.Module:
        """Load the model in fp32, with its LoRAs merged, ready to run.

        The large weights of a very large model without LoRAs stay in their files.

        Raises:
            SourceError: the weights are damaged, hold NaN or infinity, or do not fit the class.
        """
        self.check_readable()
        if not self.loras and self.parameters >= MANY:
            streamed = self._model_files.streamed()
            if streamed is not None:
                return streamed.eval()
        model = self._model_files.load()
        check_finite(model, str(self.folder), self._spare)
        for source, scale in self.loras:
            merge(model, source, scale)
            check_finite(model, f"{self.folder} with {source} merged into it", self._spare)
        return model.eval()

    @property
    def _model_files(self) -> ModelFiles:
        """What its model is loaded from.

        Raises:
            SourceError: a file is missing or damaged.
        """
        variant, files = self._weights
        return ModelFiles(
            self.folder,
            self.class_name,
            self.class_name not in TEXT_ENCODER_CLASSES,
            files,
            variant,
            dict(self.shapes()),
            self._spare,
            None if self.loras else self.layers,
        )

    @property
    def _spare(self) -> tuple[str, ...]:
        """Prefixes of tensors that are not needed."""
        is_autoencoder = self.class_name.startswith("Autoencoder")
        return (*UNUSED_WEIGHTS, *ENCODING) if is_autoencoder else UNUSED_WEIGHTS

    def adapted_components(self) -> list[frozenset[str]]:
        """Check that its LoRAs fit, and return the components of each that change this model.

        Raises:
            SourceError: a LoRA is damaged, is of an unsupported kind, or has weights for layers
                that this model does not have.
        """
        if not self.loras:
            return []
        model = self._model_files.empty()
        return [check_fits(model, source) for source, _ in self.loras]


def _variant_name(weights: str, variant: str | None) -> str:
    """Return the file name of a variant of these weights."""
    return weights if variant is None else weights.replace(".", f".{variant}.", 1)


def _index_name(weights: str, variant: str | None) -> str:
    """Return the file name of the index of these weights' shards."""
    return f"{weights}.index.json" if variant is None else f"{weights}.index.{variant}.json"
