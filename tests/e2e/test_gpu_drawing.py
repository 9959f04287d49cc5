"""Images of a GPU against those of the CPU, on machines that have a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sdpack
from sdpack.domain.precision import Runtime
from sdpack.engines.detect import gpus
from sdpack.engines.onnxruntime import offers

MOST_LEVELS = 2  # of 255
HAS_GPU = bool(gpus()) and offers(Runtime.ONNXRUNTIME_CUDA)


def drawn(bundle: Path, runtime: Runtime) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Two images as int16 (2, H, W, 3)."""
    with sdpack.open_bundle(bundle, runtime=runtime.value) as opened:
        images = opened.draw("noto, pizza", seed=1, count=2)
    return np.stack([np.asarray(image, np.int16) for image in images])


@pytest.mark.skipif(not HAS_GPU, reason="there is no GPU that ONNX Runtime can use")
def test_a_gpu_draws_what_the_cpu_draws(bundle: Path) -> None:
    difference = drawn(bundle, Runtime.ONNXRUNTIME_CUDA) - drawn(bundle, Runtime.ONNXRUNTIME_CPU)
    assert np.abs(difference).max() <= MOST_LEVELS


def test_other_seeds_differ_by_more(bundle: Path) -> None:
    """Otherwise the comparison above could not fail."""
    first, second = drawn(bundle, Runtime.ONNXRUNTIME_CPU)
    assert np.abs(first - second).max() > MOST_LEVELS
