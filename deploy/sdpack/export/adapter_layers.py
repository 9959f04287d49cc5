"""Which of a model's modules a layer of a file of low-rank weights is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sdpack.export.adapter_file import AdapterLayer, AdapterTensor, layers_of

if TYPE_CHECKING:
    from torch import Tensor, nn

# What diffusers called the layers of attention before PEFT had names for them.
OLD_NAMES = {".to_q": ".q_proj", ".to_k": ".k_proj", ".to_v": ".v_proj", ".to_out": ".out_proj"}

Placed = list[tuple[str, "Tensor", "Tensor"]]


class LayerFinder:
    """Looks layers up in one model; its weights may be on no device.

    Attributes:
        shapes: of weights, by the names of their modules.
        biases: names of modules that have one.
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
        """Module, down and up weights; several where the file has layers of the model as one.

        Names are looked up in the model; those it has not are asked of diffusers, which knows
        other programs' names of the same layers.
        """
        down, up = tensors[AdapterTensor.DOWN], tensors[AdapterTensor.UP]
        module = self._find(layer.path)
        if module is not None:
            return [(module, down, up)]
        converted = self._converted(layer, down, up)
        found: Placed = []
        for other in layers_of(converted):
            module = self._find(other.path)
            if module is None or not {AdapterTensor.DOWN, AdapterTensor.UP} <= other.keys.keys():
                return []
            pair = (
                converted[other.keys[AdapterTensor.DOWN]],
                converted[other.keys[AdapterTensor.UP]],
            )
            found.append((module, *pair))
        return found

    def _find(self, path: str) -> str | None:
        return next((self._modules[p] for p in _spellings(path) if p in self._modules), None)

    def _converted(self, layer: AdapterLayer, down: Tensor, up: Tensor) -> dict[str, Tensor]:
        """The layer by diffusers' names; empty where diffusers does not know it either."""
        from diffusers import loaders

        state = {layer.keys[AdapterTensor.DOWN]: down, layer.keys[AdapterTensor.UP]: up}
        with _quiet():
            try:
                if self._kind.startswith("Flux"):
                    found = loaders.FluxLoraLoaderMixin.lora_state_dict(state)
                elif self._config is not None:
                    xl = loaders.StableDiffusionXLLoraLoaderMixin
                    found, _ = xl.lora_state_dict(state, unet_config=self._config)
                else:
                    found = {}
            except (ValueError, LookupError, RuntimeError, AttributeError, TypeError):
                found = {}
        return dict(found)


def _spellings(path: str) -> Iterator[str]:
    """A module's name as it is, and as other versions of the libraries have it."""
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
    """Keep what diffusers says of keys it leaves out from the terminal; they are refused here."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
