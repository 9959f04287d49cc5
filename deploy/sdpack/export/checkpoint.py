"""What a folder of weights is: its library, its class, and its tensors, read without loading it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safetensors import SafetensorError, safe_open

from sdpack.errors import SourceError
from sdpack.export.adapter_file import adapter_content
from sdpack.export.finite import check_finite
from sdpack.export.lora import check_fits, merge
from sdpack.export.pipeline_index import CONFIG
from sdpack.export.single_file import explain_single_file
from sdpack.store.artifacts import digest, file_sha256

if TYPE_CHECKING:
    from torch import nn

PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth")
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
    """A transformers or diffusers folder with its config and safetensors files.

    Attributes:
        loras: files or folders of low-rank weights that are merged into it, each with its scale.
    """

    folder: Path
    loras: tuple[tuple[Path, float], ...] = ()

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its config.json.

        Raises:
            SourceError: missing or no JSON object.
        """
        if self.folder.is_file():
            raise SourceError(explain_single_file(self.folder))
        path = self.folder / CONFIG
        try:
            values = json.loads(path.read_text())
        except (OSError, ValueError) as cause:
            raise SourceError(f"{path} cannot be read ({cause}); restore the checkpoint") from cause
        if not isinstance(values, dict):
            raise SourceError(f"{path} is not a JSON object; restore the checkpoint")
        return values

    @cached_property
    def class_name(self) -> str:
        """Its transformers or diffusers class.

        Raises:
            SourceError: the config names none, or one sdpack does not export.
        """
        named = self.config.get("_class_name") or (self.config.get("architectures") or [None])[0]
        named = ALIASES.get(str(named), named)
        if named == "Transformer2DModel" and self.config.get("norm_type") == "ada_norm_single":
            named = "PixArtTransformer2DModel"
        if named not in EXPORTED:
            raise SourceError(
                f"{self.folder / CONFIG}: sdpack cannot export the class {named!r}; "
                f"it exports {', '.join(EXPORTED)}"
            )
        return str(named)

    @cached_property
    def weight_files(self) -> list[Path]:
        """Its safetensors files: the whole one, or the shards its index names; no copies beside.

        Raises:
            SourceError: there are none, or a shard is missing.
        """
        return self._weights[1]

    @cached_property
    def _weights(self) -> tuple[str | None, list[Path]]:
        """The variant that is taken, None for the weights themselves, and its files."""
        for variant in (None, *VARIANTS):
            for name in (_variant_name(name, variant) for name in WEIGHT_FILES):
                if (self.folder / name).is_file():
                    return variant, [self.folder / name]
            for name in (_index_name(name, variant) for name in WEIGHT_FILES):
                if (self.folder / name).is_file():
                    return variant, self._shards(self.folder / name)
        raise SourceError(self._no_weights())

    def _no_weights(self) -> str:
        """What is there instead, and what to do."""
        there = sorted(p.name for p in self.folder.glob("*") if p.is_file())
        pickled = [name for name in there if name.endswith(PICKLE_SUFFIXES)]
        others = [name for name in there if name.endswith(".safetensors")]
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            known = ", ".join(VARIANTS)
            return (
                f"{self.folder} holds {others[0]}{more}, which is not read: weights must be named "
                f"{' or '.join(WEIGHT_FILES)}, be several files with an index beside them, or be "
                f"one of the variants {known}; rename or restore them"
            )
        if pickled:
            return (
                f"{self.folder} holds its weights only as a pickle ({pickled[0]}), which may run "
                "any code when it is read; convert it with `sdpack catalog convert` if you trust "
                "its source, or choose a revision with .safetensors"
            )
        wanted = " or ".join(WEIGHT_FILES)
        return f"{self.folder} holds no .safetensors weights ({wanted}); restore them"

    def _shards(self, index: Path) -> list[Path]:
        try:
            names = set(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as cause:
            raise SourceError(f"{index} cannot be read ({cause!r}); restore it") from cause
        found = sorted(self.folder / name for name in names)
        missing = [path for path in found if not path.is_file()]
        if missing:
            raise SourceError(f"{missing[0]} is missing; restore it")
        return found

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of every tensor, from the files' headers alone.

        Raises:
            SourceError: a file is cut short or damaged.
        """
        for path in self.weight_files:
            try:
                with safe_open(path, "np") as weights:
                    for name in weights.keys():  # noqa: SIM118 (it is not a dict)
                        yield name, tuple(weights.get_slice(name).get_shape())
            except (SafetensorError, OSError) as cause:
                raise SourceError(f"{path} cannot be read ({cause}); restore it") from cause

    @cached_property
    def parameters(self) -> int:
        """How many numbers the tensors hold that are needed.

        That leaves out an autoencoder's encoder, and what follows a language model's.
        """
        autoencodes = self.class_name.startswith("Autoencoder")
        spare = ENCODING if autoencodes else HEADS
        counted = (shape for name, shape in self.shapes() if not name.startswith(spare))
        return sum(math.prod(shape) for shape in counted)

    @cached_property
    def content(self) -> str:
        """One hash of its config and weights, and of what is merged into them."""
        files = [self.folder / CONFIG, *self.weight_files]
        own = {path.name: file_sha256(path) for path in files}
        if not self.loras:
            return digest(own)
        merged = [[adapter_content(source), scale] for source, scale in self.loras]
        return digest({"own": own, "merged": merged, "revision": MERGE_REVISION})

    def load(self) -> nn.Module:
        """The model in fp32, low-rank weights merged into it, ready to run.

        Raises:
            SourceError: the weights are damaged, hold NaN or infinity, or do not belong to the
                class.
        """
        import torch
        import transformers
        from optimum.exporters.tasks import TasksManager

        transformers.logging.disable_progress_bar()
        for _ in self.shapes():  # damaged files are named here
            pass
        try:
            library = TasksManager.infer_library_from_model(str(self.folder))
            kind = _class(library, self.class_name)
            model = self._read(kind) if library == "diffusers" else None
            if model is None:
                model, found = kind.from_pretrained(
                    self.folder,
                    torch_dtype=torch.float32,
                    local_files_only=True,
                    variant=self._weights[0],
                    output_loading_info=True,
                )
                self._check_complete(found["missing_keys"])
        except (*BAD_WEIGHTS, OSError, ValueError, RuntimeError) as cause:
            raise SourceError(f"{self.folder} cannot be loaded: {_first_line(cause)}") from cause
        check_finite(model, str(self.folder), self._spare)
        for source, scale in self.loras:
            merge(model, source, scale)
            check_finite(model, f"{self.folder} with {source} merged into it", self._spare)
        return cast("nn.Module", model).eval()

    def adapted_components(self) -> list[frozenset[str]]:
        """Of each of its LoRAs the components that are for it, once it is seen that they fit.

        Raises:
            SourceError: one is damaged, of another kind, or has weights this model has no layer
                for.
        """
        if not self.loras:
            return []
        model = self._empty()
        return [check_fits(model, source) for source, _ in self.loras]

    def _empty(self) -> nn.Module:
        """The model as its config has it, its weights on no device."""
        from accelerate import init_empty_weights
        from optimum.exporters.tasks import TasksManager

        try:
            library = TasksManager.infer_library_from_model(str(self.folder))
            kind = _class(library, self.class_name)
            with init_empty_weights():
                if library == "diffusers":
                    made = kind.from_config(kind.load_config(self.folder, local_files_only=True))
                else:
                    made = kind(kind.config_class.from_pretrained(self.folder))
        except (*BAD_WEIGHTS, OSError, ValueError, RuntimeError, TypeError) as cause:
            raise SourceError(f"{self.folder} cannot be loaded: {_first_line(cause)}") from cause
        return cast("nn.Module", made)

    @property
    def _spare(self) -> tuple[str, ...]:
        """What the names of tensors begin with that are not needed."""
        return (
            (*UNUSED_WEIGHTS, *ENCODING)
            if self.class_name.startswith("Autoencoder")
            else UNUSED_WEIGHTS
        )

    def _check_complete(self, names: Iterable[str]) -> None:
        """Libraries fill what a file does not hold with random numbers.

        Raises:
            SourceError: a tensor that is needed is not there.
        """
        missing = sorted(name for name in names if not name.startswith(self._spare))
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise SourceError(
                f"{self.folder} holds no tensor {missing[0]}{more}, which a {self.class_name} "
                "needs; restore the checkpoint"
            )

    def _read(self, kind: Any) -> nn.Module | None:
        """The model, its weights read a few at a time: a large one is in memory once.

        What a library maps of a file stays in memory until the file is closed, beside the copy in
        fp32. None where the files hold something else than the class has, as of older versions.
        """
        import torch
        from accelerate import init_empty_weights

        with init_empty_weights(include_buffers=False):
            model = kind.from_config(kind.load_config(self.folder, local_files_only=True))
        wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        if dict(self.shapes()) != wanted:
            return None
        found = {}
        for path in self.weight_files:
            with safe_open(path, "pt") as weights:
                names = list(weights.keys())
            for start in range(0, len(names), READ_AT_ONCE):
                with safe_open(path, "pt") as weights:
                    for name in names[start : start + READ_AT_ONCE]:
                        found[name] = weights.get_tensor(name).to(torch.float32, copy=True)
        model.load_state_dict(found, assign=True)
        return cast("nn.Module", model)


def _variant_name(weights: str, variant: str | None) -> str:
    """What weights of this name are called as a variant."""
    return weights if variant is None else weights.replace(".", f".{variant}.", 1)


def _index_name(weights: str, variant: str | None) -> str:
    """What lists the shards of weights of this name."""
    return f"{weights}.index.json" if variant is None else f"{weights}.index.{variant}.json"


def _class(library: str, name: str) -> Any:
    """A class of transformers or diffusers by name."""
    import diffusers
    import transformers

    modules = {"transformers": transformers, "diffusers": diffusers}
    if library not in modules:
        raise SourceError(
            f"checkpoints of the library {library} are not supported; use {' or '.join(modules)}"
        )
    return getattr(modules[library], name)


def _first_line(cause: Exception) -> str:
    return (str(cause) or type(cause).__name__).splitlines()[0]
