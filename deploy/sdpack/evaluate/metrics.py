"""Metrics of images, some with 95 % bootstrap intervals.

They do not depend on the number of threads (`sdpack.quantization.threads`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sdpack.domain.arrays import Float64Array
from sdpack.domain.estimate import BOOTSTRAPS, Estimate, percentiles
from sdpack.quantization.threads import in_order, one_thread
from sdpack.runtime.pipeline import Pictures


class Judging(Protocol):
    """A model that embeds pictures and texts in one space."""

    def features(self, images: Tensor) -> Tensor:
        """float32 (B, D) of uint8 (B, H, W, 3) pictures."""
        ...

    def embed_features(self, features: Tensor) -> Tensor:
        """Unit vectors of such features."""
        ...

    def embed_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors of token ids and their attention mask, both int64 (B, T)."""
        ...


class Panel:
    """The judge with its tokenizer; each text is embedded once."""

    def __init__(self, judge: Judging, tokenizer: Callable[..., Any]) -> None:
        self._judge = judge
        self._tokenizer = tokenizer
        self._texts: dict[str, Tensor] = {}

    def features(self, images: Tensor, batch_size: int = 16) -> Tensor:
        """float32 (N, 1280) of uint8 (N, 64, 64, 3) pictures."""
        return torch.cat([*in_order(self._features, images.split(batch_size))])

    @torch.no_grad()  # holds for the thread it is called in
    def _features(self, images: Tensor) -> Tensor:
        return self._judge.features(images)

    @one_thread()
    @torch.no_grad()
    def embed_features(self, features: Tensor) -> Tensor:
        return self._judge.embed_features(features)

    @one_thread()
    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 512) -> Tensor:
        """Unit vectors float32 (N, 128)."""
        new = [t for t in dict.fromkeys(texts) if t not in self._texts]
        for start in range(0, len(new), batch_size):
            part = new[start : start + batch_size]
            encoded = self._tokenizer(part, padding=True, truncation=True, return_tensors="pt")
            rows = self._judge.embed_texts(encoded["input_ids"], encoded["attention_mask"])
            self._texts.update(zip(part, rows, strict=True))
        return torch.stack([self._texts[t] for t in texts])


@one_thread()
def similarity(panel: Panel, embedded: Tensor, texts: Sequence[str]) -> Float64Array:
    """Cosine of each picture and its text, as in CLIPScore (Hessel et al. 2021): (N,)."""
    return np.asarray((embedded * panel.embed_texts(texts)).sum(-1), np.float64)


def channels_first(pictures: Pictures) -> Tensor:
    """Return float32 (N, 3, H, W) in [0, 1] of pictures, uint8 (N, H, W, 3)."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


@one_thread()
def structural_similarity(pictures: Tensor, wanted: Tensor) -> Float64Array:
    """SSIM (Wang et al. 2004) of each picture, float32 (N, 3, H, W) in [0, 1]: (N,)."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    found = structural_similarity_index_measure(pictures, wanted, data_range=1.0, reduction="none")
    return np.atleast_1d(np.asarray(found, np.float64))


@one_thread()
def kid(features: Tensor, real: Tensor, seed: int = 0) -> Estimate:
    """Kernel distance (Binkowski et al. 2018), times 1000: unbiased MMD², cubic kernel.

    The interval resamples pictures on both sides. A picture drawn twice is not paired
    with itself: its weight multiplies the kernel matrix, and the diagonal is left out.
    """
    x, y = (np.asarray(f, np.float64) for f in (features, real))
    kernels = [_cubic(x, x), _cubic(y, y), _cubic(x, y)]
    ones = np.ones(len(x)), np.ones(len(y))
    rng = np.random.default_rng(seed)
    resampled = [
        _mmd2(kernels, _counts(rng, len(x)), _counts(rng, len(y))) for _ in range(BOOTSTRAPS // 4)
    ]
    return percentiles(1000 * _mmd2(kernels, *ones), 1000 * np.array(resampled))


def _cubic(a: Float64Array, b: Float64Array) -> Float64Array:
    return np.asarray((a @ b.T / a.shape[1] + 1) ** 3)


def _counts(rng: np.random.Generator, n: int) -> Float64Array:
    return np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)


def _mmd2(kernels: list[Float64Array], w: Float64Array, v: Float64Array) -> float:
    xx, yy, xy = kernels
    return float(_off_diagonal(xx, w) + _off_diagonal(yy, v) - 2 * w @ xy @ v / w.sum() / v.sum())


def _off_diagonal(kernel: Float64Array, w: Float64Array) -> float:
    total = w @ kernel @ w - (w * w) @ np.diag(kernel)
    return float(total / (w.sum() ** 2 - (w * w).sum()))
