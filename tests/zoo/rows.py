"""A data set of made-up rows and random images."""

from __future__ import annotations

import numpy as np

from zoo.data import dataset as data
from zoo.data.dataset import Dataset, Row


def random_dataset(labels: int = 30) -> Dataset:
    rows = data.assign_splits(
        Row(f"{n:X}", style, f"thing {n}", ("key", "word"), "objects", "tool")
        for n in range(labels)
        for style in data.STYLES
    )
    images = np.random.default_rng(0).integers(256, size=(len(rows), 64, 64, 3), dtype=np.uint8)
    return Dataset(tuple(rows), images)
