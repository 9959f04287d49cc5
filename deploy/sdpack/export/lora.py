"""Merging of LoRAs into a model before it is exported.

    V = W + scale * alpha / rank * up @ down        LoRA (Hu et al. 2021)
    W' = V, or with DoRA (Liu et al. 2024) magnitude * V / |V|

|V| is one norm per output, or per input in some LyCORIS files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from sdpack.errors import SourceError
from sdpack.export.adapter_file import (
    ANY_COMPONENT,
    DENOISER,
    AdapterFile,
    AdapterLayer,
    AdapterTensor,
    named,
    read_adapter,
)
from sdpack.export.adapter_layers import LayerFinder

if TYPE_CHECKING:
    from torch import Tensor, nn

TEXT_ENCODER_FOLDERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
UNET, TRANSFORMER = "unet", "transformer"
# Layers that read a text encoder's states, by how their names end in either way to write them.
READERS = ("q_proj", "to_q", "fc1", "SelfAttention.q", "SelfAttention_q", "wi_0", "query", "q_lin")
TEXT_WIDTH_KEYS = ("hidden_size", "d_model")  # keys of a text encoder's width
# Ways to begin PEFT's training that change the weights the adapter counts from.
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class _Change:
    """The change of one weight of a model by one layer of a LoRA file.

    Attributes:
        module: name of the module whose weight (and bias) changes.
        keys: keys of the layer in the file.
        scale: factor of `up @ down`, without the catalog's scale.
    """

    module: str
    keys: tuple[str, ...]
    down: Tensor
    up: Tensor
    scale: float
    mid: Tensor | None = None
    bias: Tensor | None = None
    magnitude: Tensor | None = None


def merge(model: nn.Module, source: Path, scale: float) -> None:
    """Merge a LoRA into a diffusers or transformers model, in place.

    Args:
        model: the model.
        source: LoRA file, or a folder with one.
        scale: factor of the weight update.

    Raises:
        SourceError: the file is damaged, belongs to another model, or has a key that is not used.
    """
    import torch

    file = read_adapter(source)
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for change in _changes(file, model):
            weight = weights[f"{change.module}.weight"]
            merged = _merged(weight, change, scale, file.path)
            if not bool(torch.isfinite(merged).all()):
                raise SourceError(
                    f"{file.path}: merging {named(change.keys)} makes numbers of "
                    f"{change.module}.weight that are not finite: the file is damaged, or its "
                    "scale is too large; restore the file, or lower its scale"
                )
            weight.copy_(merged)
            if change.bias is not None:
                weights[f"{change.module}.bias"].add_(scale * change.scale * change.bias)


def check_fits(model: nn.Module, source: Path) -> frozenset[str]:
    """Check that a LoRA can be merged into a model, which may be on the `meta` device.

    Returns:
        The file's components that are for this model.

    Raises:
        SourceError: as in `merge`.
    """
    file = read_adapter(source)
    for _ in _changes(file, model):
        pass
    return _components(file, model)


def _components(file: AdapterFile, model: nn.Module) -> frozenset[str]:
    """Return the components of a file that are for a model.

    Of several text encoders, this is the one with the model's width.
    """
    there = file.components
    if not hasattr(model, "get_input_embeddings"):
        name = UNET if hasattr(model, "down_blocks") else TRANSFORMER
        return frozenset(there) & {name, DENOISER, ANY_COMPONENT}
    config: Any = model.config
    width = next((getattr(config, key) for key in TEXT_WIDTH_KEYS if hasattr(config, key)), 0)
    texts = [name for name in TEXT_ENCODER_FOLDERS if name in there]
    wide = [name for name in texts if _width(file, name) == width]
    chosen = wide or [name for name in texts if _width(file, name) is None]
    return frozenset(chosen[:1]) | (frozenset(there) & {ANY_COMPONENT})


def _width(file: AdapterFile, component: str) -> int | None:
    """Return the width of a component's model, from the file's shapes; None if none shows it."""
    for layer in file.layers:
        if layer.component == component and layer.name.endswith(READERS):
            with safe_open(file.path, "np") as weights:
                return int(weights.get_slice(layer.keys[AdapterTensor.DOWN]).get_shape()[1])
    return None


def _changes(file: AdapterFile, model: nn.Module) -> Iterator[_Change]:
    """Yield the changes that a file makes to a model.

    Raises:
        SourceError: it has no weights for the model, or a layer that the model does not have.
    """
    kind, mine = type(model).__name__, _components(file, model)
    if not mine:
        raise SourceError(
            f"{file.path} has no LoRA weights for a {kind}: it has them for "
            f"{', '.join(file.components)} ({named(file.keys(file.components))})"
        )
    finder = LayerFinder(model)
    strange: list[str] = []
    seen: dict[str, str] = {}
    for layer in file.layers:
        if layer.component not in mine:
            continue
        tensors = _tensors(file.path, layer)
        placed = finder.places(layer, tensors)
        if not placed:
            strange.extend(layer.keys.values())
        for module, down, up in placed:
            if module in seen:
                raise SourceError(
                    f"{file.path}: {layer.name} and {seen[module]} both change {module}; restore it"
                )
            seen[module] = layer.name
            change = _change(file, layer, tensors, module, (down, up, len(placed) > 1))
            _check_fits(file.path, change, finder)
            yield change
    if strange:
        raise SourceError(
            f"{file.path} does not fit: a {kind} has no layer for {named(strange)}; give the "
            "model it was trained for"
        )


def _tensors(path: Path, layer: AdapterLayer) -> dict[AdapterTensor, Tensor]:
    try:
        with safe_open(path, "pt") as weights:
            return {piece: weights.get_tensor(key).float() for piece, key in layer.keys.items()}
    except (OSError, SafetensorError) as cause:
        raise SourceError(f"{path} cannot be read ({cause}); restore it") from cause


def _change(
    file: AdapterFile,
    layer: AdapterLayer,
    tensors: Mapping[AdapterTensor, Tensor],
    module: str,
    placed: tuple[Tensor, Tensor, bool],
) -> _Change:
    import torch

    down, up, is_split = placed
    more = {
        AdapterTensor.MID,
        AdapterTensor.BIAS,
        AdapterTensor.MAGNITUDE,
        AdapterTensor.DORA_SCALE,
    } & tensors.keys()
    if more and (is_split or not torch.equal(up, tensors[AdapterTensor.UP])):
        raise SourceError(
            f"{file.path}: {named(layer.keys[piece] for piece in sorted(more))} is of a layer "
            f"that the model splits into several ({module}), which sdpack does not support; "
            "merge the file with the program it was trained with"
        )
    scale = _scale(file, layer, tensors, module)
    return _Change(
        module,
        tuple(layer.keys.values()),
        down,
        up,
        scale,
        tensors.get(AdapterTensor.MID),
        tensors.get(AdapterTensor.BIAS),
        _magnitude(file.path, layer, tensors, down),
    )


def _scale(
    file: AdapterFile, layer: AdapterLayer, tensors: Mapping[AdapterTensor, Tensor], module: str
) -> float:
    """Return alpha / rank, or PEFT's scale; 1 if the file has neither."""
    rank = tensors[AdapterTensor.DOWN].shape[0]
    settings = file.settings(layer.component)
    if AdapterTensor.ALPHA in tensors:
        if settings:
            raise SourceError(
                f"{file.path} has {layer.keys[AdapterTensor.ALPHA]} and PEFT's settings, which may "
                "give different scales; remove one of them"
            )
        return float(tensors[AdapterTensor.ALPHA]) / rank
    if not settings:
        return 1.0
    return _peft_scale(file.path, settings, module, rank)


def _peft_scale(path: Path, settings: Mapping[str, Any], module: str, rank: int) -> float:
    from peft.utils.other import get_pattern_key

    begun = settings.get("init_lora_weights")
    wrong = {
        "peft_type": str(settings.get("peft_type") or "LORA") != "LORA",
        "fan_in_fan_out": bool(settings.get("fan_in_fan_out")),
        "layer_replication": bool(settings.get("layer_replication")),
        "init_lora_weights": isinstance(begun, str) and begun.lower().startswith(CHANGES_BASE),
    }
    for key, is_wrong in wrong.items():
        if is_wrong:
            raise SourceError(
                f"{path}: its setting {key} is {settings[key]!r}, which sdpack cannot merge; "
                "merge the file with PEFT and give the checkpoint"
            )
    patterns = settings.get("alpha_pattern") or {}
    alpha = patterns.get(get_pattern_key(patterns, module), settings.get("lora_alpha"))
    if not isinstance(alpha, int | float):
        raise SourceError(f"{path}: its setting lora_alpha is {alpha!r}, not a number; restore it")
    return float(alpha / (rank**0.5 if settings.get("use_rslora") else rank))


def _magnitude(
    path: Path, layer: AdapterLayer, tensors: Mapping[AdapterTensor, Tensor], down: Tensor
) -> Tensor | None:
    """Return DoRA's magnitudes, broadcastable to the weight: (out, 1, ...) or (1, in, 1, ...).

    PEFT stores (out,) for a matrix and (1, out, 1, 1) for a convolution. LyCORIS stores (out, 1)
    and (out, 1, 1, 1), or, with norms of the inputs (a former default), (1, in) and (1, in, 1, 1).
    """
    outputs, axes = tensors[AdapterTensor.UP].shape[0], (1,) * (down.ndim - 1)
    if AdapterTensor.MAGNITUDE in tensors:
        found, inputs = tensors[AdapterTensor.MAGNITUDE], 0
    elif AdapterTensor.DORA_SCALE in tensors:
        found, inputs = tensors[AdapterTensor.DORA_SCALE], down.shape[1]
    else:
        return None
    is_peft = AdapterTensor.MAGNITUDE in tensors
    if found.numel() == outputs and (is_peft or found.shape[0] == outputs):
        return found.reshape(outputs, *axes)
    if found.ndim > 1 and found.shape[:2] == (1, inputs) and found.numel() == inputs:
        return found.reshape(1, inputs, *axes[1:])
    key = layer.keys[AdapterTensor.MAGNITUDE if is_peft else AdapterTensor.DORA_SCALE]
    raise SourceError(
        f"{path}: {key} has shape {tuple(found.shape)}, but its layer has {outputs} outputs and "
        f"{down.shape[1]} inputs; restore the file"
    )


def _check_fits(path: Path, change: _Change, finder: LayerFinder) -> None:
    """Check that a change has the shape of its weight.

    Raises:
        SourceError: it has another shape, or it changes a bias that the model does not have.
    """
    up, down, mid = change.up, change.down, change.mid
    shape = finder.shapes[change.module]
    rank = up.shape[1] if up.ndim > 1 else 0
    kernel = tuple((down if mid is None else mid).shape[2:])
    made = (up.shape[0], *down.shape[1:2], *kernel)
    inner = mid is None or tuple(mid.shape[:2]) == (rank, down.shape[0])
    flat = all(side == 1 for side in (*up.shape[2:], *(down.shape[2:] if mid is not None else ())))
    fits = _without_ones(made) == _without_ones(shape) and inner and flat
    if not fits or (mid is None and rank != down.shape[0]):
        raise SourceError(
            f"{path} does not fit: {named(change.keys)} are for a weight of shape {made}, but "
            f"{change.module}.weight has {shape}; give the model it was trained for"
        )
    if change.bias is not None and change.module not in finder.biases:
        raise SourceError(
            f"{path} does not fit: {named(change.keys)} change a bias, but {change.module} has "
            "none; give the model it was trained for"
        )


def _without_ones(shape: Iterable[int]) -> tuple[int, ...]:
    """Drop the sides of a 1x1 kernel from a shape, so that it equals a matrix's."""
    sides = tuple(shape)
    return sides[:2] if all(side == 1 for side in sides[2:]) else sides


def _merged(weight: Tensor, change: _Change, scale: float, path: Path) -> Tensor:
    import torch

    up = change.up.flatten(1)
    if change.mid is None:
        product = up @ change.down.flatten(1)
    else:
        product = torch.einsum("or,rskl,si->oikl", up, change.mid, change.down.flatten(1))
    merged = weight + scale * change.scale * product.reshape(weight.shape)
    if change.magnitude is None:
        return merged
    magnitude = change.magnitude.reshape(*change.magnitude.shape[:2], *(1,) * (weight.ndim - 2))
    summed = tuple(axis for axis in range(weight.ndim) if magnitude.shape[axis] == 1)
    norm: Tensor = torch.linalg.vector_norm(merged, dim=summed, keepdim=True)
    if bool((norm == 0).any()):
        raise SourceError(
            f"{path}: {change.module}.weight merged with {named(change.keys)} is zero along an "
            "axis that DoRA divides by: the file or the checkpoint is damaged; restore it"
        )
    return magnitude * merged / norm
