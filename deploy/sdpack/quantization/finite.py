"""Check of a graph's weights for NaN and infinity, before the graph is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sdpack.domain.finite import broken_words
from sdpack.errors import GraphError
from sdpack.quantization.folding import FOLDED_TYPES
from sdpack.quantization.layers import layers


def check_weights(path: Path, model: ir.Model) -> None:
    """Check that no weight of a graph holds NaN or infinity.

    Tensors that are not weights of layers may hold negative infinity, as attention masks and biases
    do, or consist of infinities, as bounds do.

    Raises:
        GraphError: a weight holds some; gives its name, and the number of NaN and infinities.
    """
    multiplied = {str(layer.weight.name) for layer in layers(model)}
    for name, tensor in _tensors(model):
        if tensor.dtype not in FOLDED_TYPES:
            continue
        values = tensor.numpy()
        if np.isfinite(values).all() or (name not in multiplied and _is_mask(values)):
            continue
        raise GraphError(
            f"{path}: the weight {name} holds {broken_words(values)}; restore the file, or export "
            "the model again from a checkpoint without them"
        )


def _tensors(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Yield every stored tensor with its name, including those in subgraphs and attributes."""
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                yield name, value.const_value
    for node in model.graph.all_nodes():
        for attribute in node.attributes.values():
            if attribute.type is ir.AttributeType.TENSOR:
                yield str(node.outputs[0].name), attribute.as_tensor()


def _is_mask(values: NDArray[Any]) -> bool:
    """Whether infinities are intended: negative ones, as in attention biases, or bounds."""
    if np.isnan(values).any():
        return False
    return not np.isposinf(values).any() or not np.isfinite(values).any()
