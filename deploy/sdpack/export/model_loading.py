"""Loading the models of checkpoints: whole in fp32, with large weights in their files, or empty."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safetensors import SafetensorError, safe_open

from sdpack.errors import SourceError
from sdpack.export.layers_read import LAYER_COUNT, LAYER_KINDS, shorter

if TYPE_CHECKING:
    from torch import nn

BAD_WEIGHTS = (SafetensorError, LookupError, AttributeError)  # what else libraries raise for them
READ_AT_ONCE = 32  # tensors


@dataclass(frozen=True)
class ModelFiles:
    """What a model is loaded from.

    Attributes:
        folder: the checkpoint's folder, with its config.
        class_name: its transformers or diffusers class.
        is_diffusers: whether the class is of diffusers.
        weights: its safetensors files.
        variant: the variant of the weights, such as "fp16"; None for plain names.
        shapes: the shape of each tensor in the files.
        spare: prefixes of tensors that may be missing.
        layers: the number of first layers to load; None for all.
    """

    folder: Path
    class_name: str
    is_diffusers: bool
    weights: Sequence[Path]
    variant: str | None
    shapes: Mapping[str, tuple[int, ...]]
    spare: tuple[str, ...]
    layers: int | None = None

    def load(self) -> nn.Module:
        """Load the model in fp32.

        Raises:
            SourceError: the weights are damaged, or do not fit the class.
        """
        import transformers

        transformers.logging.disable_progress_bar()
        transformers.logging.set_verbosity_error()  # it lists the heads that are left out
        try:
            model = self.read_in_parts() if self.is_diffusers else None
            return self._pretrained() if model is None else model
        except (*BAD_WEIGHTS, OSError, ValueError, RuntimeError) as cause:
            raise self._refused(cause) from cause

    def empty(self, include_buffers: bool = True) -> nn.Module:
        """Return the model on the `meta` device, without weights.

        Args:
            include_buffers: whether its buffers are there, too, or have their usual values.

        Raises:
            SourceError: the config does not fit the class.
        """
        from accelerate import init_empty_weights

        try:
            with init_empty_weights(include_buffers=include_buffers):
                if self.is_diffusers:
                    return cast("nn.Module", _diffusers_model(self._class, self.folder))
                whole, config = self._configs()
                model = self._class(config)
            model.tie_weights()
            _restore_layers(model.config, whole)
            return cast("nn.Module", model)
        except (*BAD_WEIGHTS, OSError, ValueError, RuntimeError, TypeError) as cause:
            raise self._refused(cause) from cause

    def streamed(self) -> nn.Module | None:
        """Return the model with its large weights in their files.

        Returns None if the names in the files are not the class's.

        Raises:
            SourceError: a weight has NaN or infinities, or a file is damaged.
        """
        from sdpack.export import streamed

        model = self.empty(include_buffers=False)
        return model if streamed.fill(model, streamed.places(self.weights)) else None

    @property
    def _class(self) -> Any:
        import diffusers
        import transformers

        return getattr(diffusers if self.is_diffusers else transformers, self.class_name)

    def _refused(self, cause: Exception) -> SourceError:
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        return SourceError(f"{self.folder} cannot be loaded: {reason}")

    def _configs(self) -> tuple[Any, Any]:
        """Return a model's config, and the one without the layers that are not read."""
        model_class = self._class
        whole = model_class.config_class.from_pretrained(self.folder, local_files_only=True)
        config = copy.deepcopy(whole)
        return whole, config if self.layers is None else shorter(config, self.layers)

    def _pretrained(self) -> nn.Module:
        """Load a model as its library does."""
        import torch

        settings: dict[str, Any] = {
            "torch_dtype": torch.float32,
            "local_files_only": True,
            "variant": self.variant,
            "output_loading_info": True,
        }
        if self.is_diffusers:
            model, info = self._class.from_pretrained(self.folder, **settings)
        else:
            whole, config = self._configs()
            model, info = self._class.from_pretrained(self.folder, config=config, **settings)
            _restore_layers(model.config, whole)
        self._check_complete(info["missing_keys"])
        return cast("nn.Module", model)

    def _check_complete(self, names: Iterable[str]) -> None:
        """Refuse missing tensors, which libraries would fill with random numbers.

        Raises:
            SourceError: a needed tensor is missing.
        """
        missing = sorted(name for name in names if not name.startswith(self.spare))
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise SourceError(
                f"{self.folder} holds no tensor {missing[0]}{more}, which a {self.class_name} "
                "needs; restore the checkpoint"
            )

    def read_in_parts(self) -> nn.Module | None:
        """Load a model of diffusers a few tensors at a time, so that weights take memory once.

        A file's mapped pages stay in memory until it is closed, beside the fp32 copies; therefore
        the file is opened again and again. Returns None if the tensors differ from the class's, as
        in checkpoints of older versions.

        Raises:
            SourceError: a tensor has another shape than the config describes.
        """
        import torch
        from accelerate import init_empty_weights

        with init_empty_weights(include_buffers=False):
            model = _diffusers_model(self._class, self.folder)
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        own = dict(self.shapes)
        for name in sorted(own.keys() & shapes.keys()):
            if own[name] != shapes[name]:
                raise SourceError(
                    f"{self.folder} holds {name} of shape {own[name]}, but its config describes "
                    f"{shapes[name]}: they are of different models; restore both"
                )
        if own != shapes:
            return None
        tensors = {}
        for path in self.weights:
            with safe_open(path, "pt") as weights:
                names = list(weights.keys())
            for start in range(0, len(names), READ_AT_ONCE):
                with safe_open(path, "pt") as weights:
                    for name in names[start : start + READ_AT_ONCE]:
                        tensors[name] = weights.get_tensor(name).to(torch.float32, copy=True)
        model.load_state_dict(tensors, assign=True)
        return cast("nn.Module", model)


def _restore_layers(config: Any, whole: Any) -> None:
    """Give a shortened config the layers of the whole one again."""
    for name, value in vars(whole).items():
        if name in (LAYER_COUNT, LAYER_KINDS):
            setattr(config, name, value)


def _diffusers_model(model_class: Any, folder: Path) -> Any:
    """Return a model of a diffusers class, as the config in a folder describes it."""
    return model_class.from_config(model_class.load_config(folder, local_files_only=True))
