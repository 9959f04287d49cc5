"""The layers of a text encoder that its outputs need; others are neither loaded nor exported."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from sdpack.documents.conditioning import EncoderOutputs, States

if TYPE_CHECKING:
    from torch import nn

LAYER_COUNT = "num_hidden_layers"  # key of a config
LAYER_KINDS = "layer_types"  # key of a config, one entry per layer
FINAL_NORMS = ("norm", "final_layer_norm")
LAYER_LISTS = ("layers", "encoder.layers", "encoder.layer")
LISTS = ("layers", "layer")  # their names, before the number of a layer


def layers_read(outputs: EncoderOutputs, clip_skip: int, config: Mapping[str, Any]) -> int | None:
    """Return the number of an encoder's first layers that its outputs need.

    Args:
        outputs: the outputs that are used.
        clip_skip: number of last layers whose hidden states are skipped.
        config: the encoder's config.

    Returns:
        None if all layers and the final norm are needed.
    """
    count = config.get(LAYER_COUNT)
    if outputs.pooled or not isinstance(count, int):
        return None
    match outputs.states:
        case States.PENULTIMATE:
            return max(count - 1 - clip_skip, 0)
        case States.SEVERAL:
            return max(outputs.layers)
        case _:
            return None


def is_unread(tensor: str, layers: int) -> bool:
    """Whether a tensor is of a layer after the first `layers`, or of the final norm.

    Args:
        tensor: its name.
        layers: the number of layers that are read.
    """
    names = tensor.split(".")
    numbers = [
        int(number) for name, number in pairwise(names) if name in LISTS and number.isdigit()
    ]
    return numbers[0] >= layers if numbers else any(norm in names for norm in FINAL_NORMS)


def shorter(config: Any, layers: int) -> Any:
    """Shorten a config of transformers to its first layers."""
    setattr(config, LAYER_COUNT, layers)
    kinds = getattr(config, LAYER_KINDS, None)
    if kinds is not None:
        setattr(config, LAYER_KINDS, kinds[:layers])
    return config


def cut(model: nn.Module, layers: int) -> bool:
    """Remove the layers after the first `layers`, and the final norm, from a model.

    The model's last hidden states are then the output of the last layer that is left.

    Returns:
        False if the model has no list of layers that is known; it is then left as it is.
    """
    from torch import nn

    inner = cast(Any, getattr(model, "text_model", model))
    is_cut = False
    for path in LAYER_LISTS:
        owner_path, _, name = path.rpartition(".")
        owner = getattr(inner, owner_path, None) if owner_path else inner
        found = getattr(owner, name, None)
        if isinstance(found, nn.ModuleList):
            setattr(owner, name, found[:layers])
            is_cut = True
    if not is_cut:
        return False
    for norm in FINAL_NORMS:
        if hasattr(inner, norm):
            setattr(inner, norm, nn.Identity())
    return True
