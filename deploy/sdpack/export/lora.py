"""Merging of LoRAs into a model before it is exported.

    V = W + scale * alpha / rank * product
    W' = V, or with DoRA (Liu et al. 2024) magnitude * V / |V|

`sdpack.export.adapter_products` has the products of LoRA, LoHa and LoKr. |V| is one norm per
output, or per input in some LyCORIS files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from sdpack.export.adapter_products import LowRank, Product, input_width, lycoris_product

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
        product: the change, before it is scaled.
        scale: factor of the product, without the catalog's scale.
    """

    module: str
    keys: tuple[str, ...]
    product: Product
    scale: float
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
                return input_width(
                    {t: tuple(weights.get_slice(k).get_shape()) for t, k in layer.keys.items()}
                )
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
        placed = _placed(file.path, layer, tensors, finder)
        if not placed:
            strange.extend(layer.keys.values())
        for module, product in placed.items():
            if module in seen:
                raise SourceError(
                    f"{file.path}: {layer.name} and {seen[module]} both change {module}; restore it"
                )
            seen[module] = layer.name
            change = _change(file, layer, tensors, (module, product, finder.shapes[module]))
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


def _placed(
    path: Path, layer: AdapterLayer, tensors: Mapping[AdapterTensor, Tensor], finder: LayerFinder
) -> dict[str, Product]:
    """Return the change of each module that a layer changes; empty if the model has no such layer.

    Raises:
        SourceError: the model has several modules for it, and only a plain LoRA can be split.
    """
    import torch

    whole = lycoris_product(tensors)
    if whole is not None:
        modules = finder.modules(layer, whole.made)
        _refuse_split(path, layer, layer.keys.values(), modules if len(modules) > 1 else ())
        return dict.fromkeys(modules, whole)
    placed = finder.places(layer, tensors)
    more = {
        AdapterTensor.MID,
        AdapterTensor.BIAS,
        AdapterTensor.MAGNITUDE,
        AdapterTensor.DORA_SCALE,
    } & tensors.keys()
    if more:
        split = [
            module
            for module, _, up in placed
            if len(placed) > 1 or not torch.equal(up, tensors[AdapterTensor.UP])
        ]
        _refuse_split(path, layer, (layer.keys[piece] for piece in sorted(more)), split)
    mid = tensors.get(AdapterTensor.MID)
    return {module: LowRank(down, up, mid) for module, down, up in placed}


def _refuse_split(
    path: Path, layer: AdapterLayer, keys: Iterable[str], modules: Sequence[str]
) -> None:
    if modules:
        raise SourceError(
            f"{path}: {named(keys)} is of a layer that the model splits into several "
            f"({modules[0]}), which sdpack does not support; merge the file with the program it "
            "was trained with"
        )


def _change(
    file: AdapterFile,
    layer: AdapterLayer,
    tensors: Mapping[AdapterTensor, Tensor],
    placed: tuple[str, Product, tuple[int, ...]],
) -> _Change:
    """Return the change of a module, given with its product and the shape of its weight."""
    module, product, shape = placed
    return _Change(
        module,
        tuple(layer.keys.values()),
        product,
        _scale(file, layer, tensors, module, product),
        tensors.get(AdapterTensor.BIAS),
        _magnitude(file.path, layer, tensors, product.made[0], shape),
    )


def _scale(
    file: AdapterFile,
    layer: AdapterLayer,
    tensors: Mapping[AdapterTensor, Tensor],
    module: str,
    product: Product,
) -> float:
    """Return alpha / rank, or PEFT's scale; 1 if the file has neither, or alpha does not count."""
    settings = file.settings(layer.component)
    if AdapterTensor.ALPHA in tensors:
        if settings:
            raise SourceError(
                f"{file.path} has {layer.keys[AdapterTensor.ALPHA]} and PEFT's settings, which may "
                "give different scales; remove one of them"
            )
        return float(tensors[AdapterTensor.ALPHA]) / product.rank if product.rank else 1.0
    if not settings:
        return 1.0
    return _peft_scale(file.path, settings, module, product)


def _peft_scale(path: Path, settings: Mapping[str, Any], module: str, product: Product) -> float:
    from peft.utils.other import get_pattern_key

    key = "lora_alpha" if product.peft_type == "LORA" else "alpha"
    begun = settings.get("init_lora_weights")
    wrong = {
        "peft_type": str(settings.get("peft_type") or "LORA") != product.peft_type,
        "fan_in_fan_out": bool(settings.get("fan_in_fan_out")),
        "layer_replication": bool(settings.get("layer_replication")),
        "init_lora_weights": isinstance(begun, str) and begun.lower().startswith(CHANGES_BASE),
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise SourceError(
                f"{path}: its setting {name} is {settings.get(name)!r}, which sdpack cannot merge; "
                "merge the file with PEFT and give the checkpoint"
            )
    alpha, rank = (
        patterns.get(get_pattern_key(patterns, module), settings.get(usual))
        for patterns, usual in (
            (settings.get("alpha_pattern") or {}, key),
            (settings.get("rank_pattern") or {}, "r"),
        )
    )
    rank = product.rank or rank
    if not isinstance(alpha, int | float) or not isinstance(rank, int):
        raise SourceError(f"{path}: its settings {key} and r are not both numbers; restore it")
    return float(alpha / (rank**0.5 if settings.get("use_rslora") else rank))


def _magnitude(
    path: Path,
    layer: AdapterLayer,
    tensors: Mapping[AdapterTensor, Tensor],
    outputs: int,
    shape: tuple[int, ...],
) -> Tensor | None:
    """Return DoRA's magnitudes, broadcastable to the weight: (out, 1, ...) or (1, in, 1, ...).

    PEFT stores (out,) for a matrix and (1, out, 1, 1) for a convolution. LyCORIS stores (out, 1)
    and (out, 1, 1, 1), or, with norms of the inputs (a former default), (1, in) and (1, in, 1, 1).

    Args:
        outputs: outputs of the layer's change.
        shape: shape of the weight.
    """
    axes = (1,) * (len(shape) - 1)
    if AdapterTensor.MAGNITUDE in tensors:
        found, inputs = tensors[AdapterTensor.MAGNITUDE], 0
    elif AdapterTensor.DORA_SCALE in tensors:
        found, inputs = tensors[AdapterTensor.DORA_SCALE], shape[1]
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
        f"{shape[1]} inputs; restore the file"
    )


def _check_fits(path: Path, change: _Change, finder: LayerFinder) -> None:
    """Check that a change has the shape of its weight.

    Raises:
        SourceError: it has another shape, or it changes a bias that the model does not have.
    """
    shape, product = finder.shapes[change.module], change.product
    if not product.fits(shape):
        raise SourceError(
            f"{path} does not fit: {named(change.keys)} are for a weight of shape {product.made}, "
            f"but {change.module}.weight has {shape}; give the model it was trained for"
        )
    if change.bias is not None and change.module not in finder.biases:
        raise SourceError(
            f"{path} does not fit: {named(change.keys)} change a bias, but {change.module} has "
            "none; give the model it was trained for"
        )


def _merged(weight: Tensor, change: _Change, scale: float, path: Path) -> Tensor:
    import torch

    product = change.product.product()
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
