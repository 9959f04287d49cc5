"""Classifier-free guidance: joining the predictions with and without the prompt."""

from __future__ import annotations

import numpy as np

from sdpack.documents.conditioning import KeptNorm
from sdpack.domain.arrays import Float32Array

PATCH = 2  # side of a patch, in latent pixels


def combined(
    unguided: Float32Array, guided: Float32Array, weight: float, rescale: float
) -> Float32Array:
    """The prediction away from the negative conditions, towards those of the prompts.

    Args:
        unguided: the prediction with the negative conditions, float32 (N, C, h, w).
        guided: the prediction with the prompts, of the same shape.
        weight: of the second prediction; that of the first is the rest to 1.
        rescale: how far the result is rescaled to the second's standard deviation (Lin et al.
            2023).
    """
    noise = unguided + np.float32(weight) * (guided - unguided)
    if rescale <= 0:
        return noise
    share = np.float32(rescale)
    return share * noise * (_spread(guided) / _spread(noise)) + (1 - share) * noise


def with_norms_of(guided: Float32Array, noise: Float32Array, kept: KeptNorm) -> Float32Array:
    """The prediction, scaled to the norms of the conditional one.

    Args:
        guided: the conditional prediction, float32 (N, C, h, w).
        noise: the guided prediction, of the same shape; sides are even where patches are scaled.
        kept: the numbers that are scaled together.
    """
    if kept is KeptNorm.NONE:
        return noise
    wanted, norms = (_norms(each, kept) for each in (guided, noise))
    return np.asarray(noise * (wanted / norms), np.float32)


def _norms(noise: Float32Array, kept: KeptNorm) -> Float32Array:
    """Norms that broadcast to the prediction's shape."""
    if kept is KeptNorm.ROW:
        return np.asarray(np.linalg.norm(noise, axis=-1, keepdims=True), np.float32)
    batch, channels, height, width = noise.shape
    shape = (batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    norms = np.sqrt((noise.reshape(shape) ** 2).sum(axis=(1, 3, 5)))
    whole = norms.repeat(PATCH, axis=1).repeat(PATCH, axis=2)
    return np.asarray(whole[:, np.newaxis], np.float32)


def _spread(noise: Float32Array) -> Float32Array:
    """The standard deviation of each row, (N, 1, 1, 1)."""
    return np.asarray(noise.std(axis=(1, 2, 3), keepdims=True, ddof=1), np.float32)
