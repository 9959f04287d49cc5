"""Checkpoints: config, class and tensor shapes of a folder of weights, and loading it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

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
from sdpack.export.lora import check_fits, merge
from sdpack.export.pipeline_index import CONFIG
from sdpack.export.single_file import explain_single_file
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
)
DENOISER_CLASSES = (
    "UNet2DConditionModel",
    "SD3Transformer2DModel",
    "PixArtTransformer2DModel",
    "FluxTransformer2DModel",
)
DECODER_CLASSES = ("AutoencoderKL", "AutoencoderTiny")
EXPORTED = (*TEXT_ENCODER_CLASSES, *DENOISER_CLASSES, *DECODER_CLASSES)
BAD_WEIGHTS = (SafetensorError, LookupError, AttributeError)  # what else libraries raise for them
READ_AT_ONCE = 32  # tensors
MERGE_REVISION = 2  # of what merging does; a change makes graphs of merged weights again
UNUSED_WEIGHTS = ("pooler.",)  # tensors that models of the same class may come without
ENCODING = ("encoder.", "quant_conv.")  # of an autoencoder
HEADS = ("decoder.", "lm_head.", "cls.", "vocab_")  # of language models
# What hubs call the same weights: whole models of which only the encoder is needed, and the class
# PixArt's transformers had before they had their own.
ALIASES = {
    "T5ForConditionalGeneration": "T5EncoderModel",
    "T5Model": "T5EncoderModel",
    "BertForMaskedLM": "BertModel",
    "BertForPreTraining": "BertModel",
    "DistilBertForMaskedLM": "DistilBertModel",
    "RobertaForMaskedLM": "RobertaModel",
}


@dataclass(frozen=True)
class Checkpoint:
    """A transformers or diffusers folder with a config and safetensors files.

    Attributes:
        loras: LoRA files or folders to merge into it, each with its scale.
        known_shapes: the shape of each tensor, if the weights are not on this machine.
    """

    folder: Path
    loras: tuple[tuple[Path, float], ...] = ()
    known_shapes: Mapping[str, tuple[int, ...]] | None = field(default=None, compare=False)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The contents of config.json.

        Raises:
            SourceError: it is missing or not a JSON object.
        """
        if self.folder.is_file():
            raise SourceError(explain_single_file(self.folder))
        path = self.folder / CONFIG
        try:
            values = json.loads(path.read_text())
        except FileNotFoundError as cause:
            raise SourceError(explain_no_config(self.folder, CONFIG)) from cause
        except (OSError, ValueError) as cause:
            raise SourceError(f"{path} cannot be read ({cause}); restore the checkpoint") from cause
        if not isinstance(values, dict):
            raise SourceError(f"{path} is not a JSON object; restore the checkpoint")
        return values

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
            SourceError: they are not, or have the keys of another program; says what they are.
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

        Excludes an autoencoder's encoder, and everything after a language model's encoder.
        """
        is_autoencoder = self.class_name.startswith("Autoencoder")
        unexported = ENCODING if is_autoencoder else HEADS
        exported = (shape for name, shape in self.shapes() if not name.startswith(unexported))
        return sum(math.prod(shape) for shape in exported)

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

        Raises:
            SourceError: the weights are damaged, hold NaN or infinity, or do not fit the class.
        """
        import torch
        import transformers

        transformers.logging.disable_progress_bar()
        self.check_readable()
        try:
            model_class = _class(self.class_name)
            model = self._read(model_class) if self._is_diffusers else None
            if model is None:
                model, loading_info = model_class.from_pretrained(
                    self.folder,
                    torch_dtype=torch.float32,
                    local_files_only=True,
                    variant=self._weights[0],
                    output_loading_info=True,
                )
                self._check_complete(loading_info["missing_keys"])
        except (*BAD_WEIGHTS, OSError, ValueError, RuntimeError) as cause:
            raise SourceError(f"{self.folder} cannot be loaded: {_first_line(cause)}") from cause
        check_finite(model, str(self.folder), self._spare)
        for source, scale in self.loras:
            merge(model, source, scale)
            check_finite(model, f"{self.folder} with {source} merged into it", self._spare)
        return cast("nn.Module", model).eval()

    def adapted_components(self) -> list[frozenset[str]]:
        """Check that its LoRAs fit, and return the components of each that change this model.

        Raises:
            SourceError: a LoRA is damaged, is of an unsupported kind, or has weights for layers
                that this model does not have.
        """
        if not self.loras:
            return []
        model = self._empty()
        return [check_fits(model, source) for source, _ in self.loras]

    def _empty(self) -> nn.Module:
        """Return the model on the `meta` device, without weights."""
        from accelerate import init_empty_weights

        try:
            model_class = _class(self.class_name)
            with init_empty_weights():
                if self._is_diffusers:
                    model = _diffusers_model(model_class, self.folder)
                else:
                    config = model_class.config_class.from_pretrained(self.folder)
                    model = model_class(config)
        except (*BAD_WEIGHTS, OSError, ValueError, RuntimeError, TypeError) as cause:
            raise SourceError(f"{self.folder} cannot be loaded: {_first_line(cause)}") from cause
        return cast("nn.Module", model)

    @property
    def _is_diffusers(self) -> bool:
        return self.class_name not in TEXT_ENCODER_CLASSES

    @property
    def _spare(self) -> tuple[str, ...]:
        """Prefixes of tensors that are not needed."""
        return (
            (*UNUSED_WEIGHTS, *ENCODING)
            if self.class_name.startswith("Autoencoder")
            else UNUSED_WEIGHTS
        )

    def _check_complete(self, names: Iterable[str]) -> None:
        """Refuse missing tensors, which libraries would fill with random numbers.

        Raises:
            SourceError: a needed tensor is missing.
        """
        missing = sorted(name for name in names if not name.startswith(self._spare))
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise SourceError(
                f"{self.folder} holds no tensor {missing[0]}{more}, which a {self.class_name} "
                "needs; restore the checkpoint"
            )

    def _read(self, model_class: Any) -> nn.Module | None:
        """Load the model a few tensors at a time, so that its weights are in memory only once.

        A file's mapped pages stay in memory until it is closed, beside the fp32 copies; therefore
        the file is opened again and again. Returns None if the tensors differ from the class's, as
        in checkpoints of older versions.
        """
        import torch
        from accelerate import init_empty_weights

        with init_empty_weights(include_buffers=False):
            model = _diffusers_model(model_class, self.folder)
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        own = dict(self.shapes())
        for name in sorted(own.keys() & shapes.keys()):
            if own[name] != shapes[name]:
                raise SourceError(
                    f"{self.folder} holds {name} of shape {own[name]}, but its config describes "
                    f"{shapes[name]}: they are of different models; restore both"
                )
        if own != shapes:
            return None
        tensors = {}
        for path in self.weight_files:
            with safe_open(path, "pt") as weights:
                names = list(weights.keys())
            for start in range(0, len(names), READ_AT_ONCE):
                with safe_open(path, "pt") as weights:
                    for name in names[start : start + READ_AT_ONCE]:
                        tensors[name] = weights.get_tensor(name).to(torch.float32, copy=True)
        model.load_state_dict(tensors, assign=True)
        return cast("nn.Module", model)


def _diffusers_model(model_class: Any, folder: Path) -> Any:
    """Return a model of a diffusers class, as the config in a folder describes it."""
    return model_class.from_config(model_class.load_config(folder, local_files_only=True))


def _variant_name(weights: str, variant: str | None) -> str:
    """Return the file name of a variant of these weights."""
    return weights if variant is None else weights.replace(".", f".{variant}.", 1)


def _index_name(weights: str, variant: str | None) -> str:
    """Return the file name of the index of these weights' shards."""
    return f"{weights}.index.json" if variant is None else f"{weights}.index.{variant}.json"


def _class(name: str) -> Any:
    """Return a class of transformers or diffusers by name."""
    import diffusers
    import transformers

    return getattr(transformers if name in TEXT_ENCODER_CLASSES else diffusers, name)


def _first_line(cause: Exception) -> str:
    return (str(cause) or type(cause).__name__).splitlines()[0]
