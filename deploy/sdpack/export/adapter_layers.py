"""Matching the layers of a LoRA file to the modules of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sdpack.export.adapter_file import AdapterLayer, AdapterTensor, layers_of

if TYPE_CHECKING:
    from torch import Tensor, nn

# Names of attention layers in diffusers before it used PEFT, and their current names.
OLD_NAMES = {".to_q": ".q_proj", ".to_k": ".k_proj", ".to_v": ".v_proj", ".to_out": ".out_proj"}

Placed = list[tuple[str, "Tensor", "Tensor"]]


class LayerFinder:
    """Finds the modules of one model that a LoRA's layers change; the model may be on `meta`.

    Attributes:
        shapes: shapes of weights, by module name.
        biases: names of the modules with a bias.
    """

    def __init__(self, model: nn.Module) -> None:
        weights = dict(model.named_parameters())
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name.removesuffix(".weight"): tuple(weight.shape)
            for name, weight in weights.items()
            if name.endswith(".weight") and weight.ndim >= 2
        }
        self.biases = {n.removesuffix(".bias") for n in weights if n.endswith(".bias")}
        self._kind = type(model).__name__
        self._config = model.config if hasattr(model, "down_blocks") else None
        self._modules = {name: name for name in self.shapes}
        self._modules |= {name.replace(".", "_"): name for name in self.shapes}

    def places(self, layer: AdapterLayer, tensors: Mapping[AdapterTensor, Tensor]) -> Placed:
        """Return the modules that a layer changes, each with its down and up weights.

        One layer of a file may combine several layers of the model. Names that the model does not
        have are converted by diffusers, which knows the key formats of other programs. The result
        is empty if the model has no such layer.
        """
        down, up = tensors[AdapterTensor.DOWN], tensors[AdapterTensor.UP]
        module = self._find(layer.path)
        if module is not None:
            return [(module, down, up)]
        converted = self._converted(
            {layer.keys[AdapterTensor.DOWN]: down, layer.keys[AdapterTensor.UP]: up}
        )
        placed: Placed = []
        for other in layers_of(converted):
            module = self._find(other.path)
            if module is None or not {AdapterTensor.DOWN, AdapterTensor.UP} <= other.keys.keys():
                return []
            pair = (
                converted[other.keys[AdapterTensor.DOWN]],
                converted[other.keys[AdapterTensor.UP]],
            )
            placed.append((module, *pair))
        return placed

    def modules(self, layer: AdapterLayer, made: tuple[int, ...]) -> list[str]:
        """Return the modules that a layer of another kind than a LoRA changes.

        Its name is converted as the one of a LoRA would be.

        Args:
            made: shape of the change of its weight, of which the first two numbers count.
        """
        import torch

        pair = {AdapterTensor.DOWN: "lora_down.weight", AdapterTensor.UP: "lora_up.weight"}
        keys = {piece: f"{layer.name}.{suffix}" for piece, suffix in pair.items()}
        stand_in = {
            AdapterTensor.DOWN: torch.zeros(1, made[1]),
            AdapterTensor.UP: torch.zeros(made[0], 1),
        }
        return [module for module, *_ in self.places(AdapterLayer(layer.name, keys), stand_in)]

    def _find(self, path: str) -> str | None:
        return next((self._modules[p] for p in _spellings(path) if p in self._modules), None)

    def _converted(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a LoRA's layer under diffusers' names; empty if diffusers cannot convert it."""
        from diffusers import loaders

        with _quiet():
            try:
                if self._kind.startswith("Flux"):
                    converted = loaders.FluxLoraLoaderMixin.lora_state_dict(dict(state))
                elif self._config is not None:
                    xl = loaders.StableDiffusionXLLoraLoaderMixin
                    converted, _ = xl.lora_state_dict(dict(state), unet_config=self._config)
                else:
                    converted = {}
            except (ValueError, LookupError, RuntimeError, AttributeError, TypeError):
                converted = {}
        return dict(converted)


def _spellings(path: str) -> Iterator[str]:
    """Yield a module's name, and its names in other versions of the libraries."""
    plain = path.replace(".processor.", ".")
    for name in (plain, plain.removeprefix("text_model.").removeprefix("text_model_")):
        for prefix in ("", "text_model.", "text_model_"):
            yield prefix + name
            if name.endswith(".to_out"):
                yield f"{prefix}{name}.0"
            for old, new in OLD_NAMES.items():
                if name.endswith(old):
                    yield prefix + name.removesuffix(old) + new


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence diffusers' warnings about ignored keys; sdpack raises an error for them."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
