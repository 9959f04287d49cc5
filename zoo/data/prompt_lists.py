"""The prompt lists, chosen from the data set by hash."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.data.categories import prompts_by_category
from zoo.data.dataset import STYLES, Dataset, Row, Split, Style
from zoo.data.prompts import ListName, Prompt, balanced, order_of, prompt_of

EVALUATION_SIZES: dict[Split, int] = {"unseen_pairs": 384, "unseen_labels": 300}
CALIBRATION_SIZE = 256


def make_lists(dataset: Dataset) -> dict[ListName, list[Prompt]]:
    """Return the evaluation list of each split and the calibration list, which are disjoint."""
    drawn = dataset.drawn().rows
    lists: dict[ListName, list[Prompt]] = {}
    for split, count in EVALUATION_SIZES.items():
        rows = balanced([r for r in drawn if r.split == split], count)
        lists[split] = [prompt_of(r) for r in rows]  # type: ignore[index]
    train = balanced([r for r in drawn if r.split == "train"], CALIBRATION_SIZE)
    lists["calibration"] = [prompt_of(r) for r in train]
    lists["samples"] = [prompt_of(r) for r in _samples(drawn)]
    calibration = frozenset(p.text for p in lists["calibration"])
    lists["by_category"] = prompts_by_category(drawn, calibration)
    return lists


# Rows of the contact sheet, in addition to some unseen labels: label and style.
SAMPLES: tuple[tuple[str, Style], ...] = (
    *(("pizza", style) for style in STYLES),
    ("blue heart", "twemoji"),
    ("red heart", "fluent-3d"),
    ("rocket", "noto"),
    ("cat face", "emojione"),
    ("sunflower", "twemoji"),
    ("house", "noto-v1"),
    ("birthday cake", "fluent-flat"),
    ("whale", "fluent-3d"),
    ("guitar", "noto"),
)
UNSEEN_SAMPLES = 5


def _samples(drawn: Sequence[Row]) -> list[Row]:
    by_name = {(r.caption, r.style): r for r in drawn}
    unseen = sorted((r for r in drawn if r.split == "unseen_labels"), key=order_of)
    labels = list(dict.fromkeys(r.caption for r in unseen))[:UNSEEN_SAMPLES]
    first = [next(r for r in unseen if r.caption == label) for label in labels]
    return [by_name[name] for name in SAMPLES if name in by_name] + first
