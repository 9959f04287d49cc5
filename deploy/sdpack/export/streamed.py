"""Models whose large weights stay in their files, and are read one at a time.

A model of four billion parameters takes 16 GB in fp32, and an export would take them twice. Here,
each large weight is a placeholder that takes no memory. It knows its place in a file. The exporter
copies it from there into the graph, and a module that runs reads it for as long as it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor, nn

from sdpack.domain.finite import counted_words
from sdpack.errors import SourceError

PREFIXES = ("model", "text_model", "model.language_model")  # of models inside others
ROWS_AT_ONCE = 4096  # converted at once: a table of 250,000 tokens takes a gigabyte in 16 bits
LARGE = 2**16  # numbers in a weight that stays there; smaller ones are loaded


@dataclass(frozen=True)
class StoredWeight:
    """The place of a weight.

    Attributes:
        path: safetensors file.
        key: name of the tensor in it.
        shape: its shape.
    """

    path: Path
    key: str
    shape: tuple[int, ...]

    def read(self) -> Tensor:
        """Read it, in fp32.

        Raises:
            SourceError: it has NaN or infinities.
        """
        tensor = torch.empty(self.shape)
        with safe_open(self.path, "pt") as weights:
            if self.shape:
                stored = weights.get_slice(self.key)
                for first in range(0, self.shape[0], ROWS_AT_ONCE):
                    rows = slice(first, first + ROWS_AT_ONCE)
                    tensor[rows] = stored[rows]
            else:
                tensor.copy_(weights.get_tensor(self.key))
        parts = tensor.split(ROWS_AT_ONCE) if self.shape else (tensor,)
        nan = sum(int(part.isnan().sum()) for part in parts)
        infinite = sum(int(part.isinf().sum()) for part in parts)
        if nan or infinite:
            raise SourceError(
                f"{self.path}: the tensor {self.key} holds "
                f"{counted_words(nan, infinite, tensor.numel())}; download the weights again, or "
                "choose others"
            )
        return tensor


def stored_weight(parameter: Tensor) -> StoredWeight | None:
    """Return the place of a placeholder's weight; None for a weight that is loaded."""
    return getattr(parameter, "stored", None)


def stored_weights(module: nn.Module) -> dict[str, StoredWeight]:
    """Return the places of all placeholders of a module, by parameter name."""
    found = {name: stored_weight(parameter) for name, parameter in module.named_parameters()}
    return {name: place for name, place in found.items() if place is not None}


def places(files: Sequence[Path]) -> dict[str, StoredWeight]:
    """Return the places of all tensors in safetensors files, by name."""
    found: dict[str, StoredWeight] = {}
    for path in files:
        with safe_open(path, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (it is not a dict)
                shape = tuple(weights.get_slice(name).get_shape())
                found[name] = StoredWeight(path, name, shape)
    return found


def fill(model: nn.Module, stored: Mapping[str, StoredWeight]) -> bool:
    """Give a model on the meta device its weights: small ones loaded, large ones as placeholders.

    Args:
        model: the model.
        stored: the place of each tensor, by its name in the model, or with a prefix before it.

    Returns:
        False if a weight is missing; the model is then incomplete.

    Raises:
        SourceError: a weight has another shape than the model's, NaN or infinities.
    """
    tied: dict[int, StoredWeight] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        place = _place(name, stored)
        if place is not None:
            tied[id(tensor)] = place
    for owner_name, owner in model.named_modules():
        prefix = f"{owner_name}." if owner_name else ""
        own = {**owner._parameters, **owner._buffers}
        kept = own.keys() - owner._non_persistent_buffers_set
        for name in sorted(kept):
            tensor = own[name]
            if tensor is None:
                continue
            found = _place(f"{prefix}{name}", stored) or tied.get(id(tensor))
            if found is None:
                return False
            if found.shape != tuple(tensor.shape):
                raise SourceError(
                    f"{found.path} holds {found.key} of shape {found.shape}, but its config "
                    f"describes {tuple(tensor.shape)}: they are of different models; restore both"
                )
            if name in owner._buffers:
                owner._buffers[name] = found.read().to(tensor.dtype)
            else:
                owner._parameters[name] = _parameter(owner, found, tensor)
        if any(stored_weight(p) for p in owner._parameters.values() if p is not None):
            owner.register_forward_pre_hook(_read)
            owner.register_forward_hook(_forget, always_call=True)
    return True


def _place(name: str, stored: Mapping[str, StoredWeight]) -> StoredWeight | None:
    """Return the place of a tensor; models inside others have a prefix, such as "model."."""
    if name in stored:
        return stored[name]
    prefixed = [f"{prefix}.{name}" for prefix in PREFIXES if f"{prefix}.{name}" in stored]
    return stored[prefixed[0]] if prefixed else None


def _parameter(owner: nn.Module, place: StoredWeight, tensor: Tensor) -> nn.Parameter:
    """Return a placeholder if only the owner itself uses the weight, and it is large."""
    is_leaf = isinstance(owner, nn.Linear | nn.Embedding | nn.Conv2d)
    if not is_leaf or tensor.numel() < LARGE:
        return nn.Parameter(place.read(), requires_grad=False)
    parameter = nn.Parameter(torch.zeros(1).expand(tensor.shape), requires_grad=False)
    cast(Any, parameter).stored = place
    return parameter


def _read(owner: nn.Module, _inputs: object) -> None:
    """Read the weights of a module that is about to run, except while it is traced."""
    if torch.compiler.is_exporting() or torch.compiler.is_compiling():
        return
    for parameter in owner._parameters.values():
        place = None if parameter is None else stored_weight(parameter)
        if parameter is not None and place is not None:
            parameter.data = place.read()


def _forget(owner: nn.Module, _inputs: object, _output: object) -> None:
    """Free the weights of a module that has run."""
    for parameter in owner._parameters.values():
        if parameter is not None and stored_weight(parameter) is not None:
            parameter.data = torch.zeros(1).expand(parameter.shape)
