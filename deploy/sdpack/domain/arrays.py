"""Names for arrays of floating-point numbers; shapes are in the docstrings of what uses them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
"""Tensors: latents, embeddings, pictures, weights."""
Float64Array = NDArray[np.float64]
"""Figures: scores, coefficients, statistics."""
