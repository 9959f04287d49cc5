"""How a layer's moments are cut, and how many layers are computed at the same time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sdpack.quantization.layers import Layer
from sdpack.quantization.threads import threads_for
from sdpack.quantization.uses import LayerKind

FEWEST_COLUMNS_TO_CUT = 4608  # above that a layer's moments are kept for runs of columns
RUN = 1152  # columns at most, then; 128 channels of a 3x3 convolution
COPIES = 6  # of a layer's moments and weight, at most, while it is observed or rounded


def column_runs(layer: Layer) -> list[tuple[int, int]]:
    """Return runs of columns (start, stop), one for each moment; several if there are many."""
    if layer.summed <= FEWEST_COLUMNS_TO_CUT:
        return [(0, layer.summed)]
    kernel = int(np.prod(layer.shape[2:])) or 1
    step = max(1, RUN // kernel) * kernel
    starts = range(0, layer.summed, step)
    return [(start, min(start + step, layer.summed)) for start in starts]


def threads_for_layers(layers: Iterable[Layer]) -> int:
    """How many of these layers to observe or to round at the same time, as memory allows."""
    return threads_for(max((working_bytes(layer) for layer in layers), default=0))


def working_bytes(layer: Layer) -> int:
    """About what a layer takes while it is observed or rounded, in bytes."""
    columns = layer.summed if layer.summed <= FEWEST_COLUMNS_TO_CUT else RUN
    moments = 0 if layer.kind is LayerKind.TABLE else columns**2
    return COPIES * np.dtype(np.float32).itemsize * (moments + layer.size)
