"""How well the judge recognizes the prompt of an image of the zoo."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sdpack.domain.arrays import Float64Array
from sdpack.evaluate.metrics import Panel
from torch import Tensor

from zoo.data.dataset import STYLES, share
from zoo.data.prompts import Prompt, prompt_text

CAPTIONS = 100


def distractors(prompt: Prompt, labels: Sequence[str]) -> list[str]:
    """Return the 99 other captions for R-precision: other labels in the style of the prompt.

    A hash chooses them, so that they are the same for every mix.
    """
    others = sorted(
        (label for label in labels if label != prompt.label),
        key=lambda label: share(f"distractor/{prompt.label}/{prompt.style}/{label}"),
    )
    return [prompt_text(label, prompt.style) for label in others[: CAPTIONS - 1]]


def r_precision(
    panel: Panel, embedded: Tensor, prompts: Sequence[Prompt], labels: Sequence[str]
) -> Float64Array:
    """Return 1 for each image whose own caption the judge ranks first among 100, else 0: (N,)."""
    hits = []
    for picture, prompt in zip(embedded, prompts, strict=True):
        texts = panel.embed_texts([prompt.text, *distractors(prompt, labels)])
        hits.append(float((texts @ picture).argmax() == 0))
    return np.array(hits)


def style_accuracy(panel: Panel, embedded: Tensor, prompts: Sequence[Prompt]) -> Float64Array:
    """Return 1 for each image whose style the judge ranks first among the six, else 0: (N,)."""
    hits = []
    for picture, prompt in zip(embedded, prompts, strict=True):
        texts = panel.embed_texts([prompt_text(prompt.label, s) for s in STYLES])
        hits.append(float((texts @ picture).argmax() == STYLES.index(prompt.style)))
    return np.array(hits)
