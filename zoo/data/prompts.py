"""The format of the zoo's prompts, and the fixed prompt lists of all measurements.

A prompt is `"<style>, <label>"`, for instance "fluent 3d, hatching chick". The style comes first,
so that truncation of a long caption never removes the style.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from zoo.data.dataset import STYLES, Dataset, Row, Split, Style, share
from zoo.errors import DataError

PROMPTS_FOLDER = Path(__file__).parents[1] / "prompts"
EVALUATION_SIZES: dict[Split, int] = {"unseen_pairs": 384, "unseen_labels": 300}
CALIBRATION_SIZE = 256

ListName = Literal["unseen_pairs", "unseen_labels", "calibration", "samples"]
LIST_NAMES: tuple[ListName, ...] = get_args(ListName)


@dataclass(frozen=True)
class Prompt:
    """One line of a prompt list; `code` and `style` name the real image that belongs to it.

    Its category, by which sdpack reports scores, is the style in words.

    The judge may have been trained on that image (`judge_saw`); its scores of such images are too
    high. It was not trained on generated images.
    """

    text: str
    label: str
    style: Style
    code: str
    judge_saw: bool = False
    category: str = ""


def style_words(style: Style) -> str:
    return style.replace("-", " ")


def prompt_text(label: str, style: Style) -> str:
    return f"{style_words(style)}, {label}"


# How often each of `training_texts` is drawn.
TRAINING_TEXT_SHARES = (0.6, 0.15, 0.15, 0.1)


def training_texts(row: Row) -> list[str]:
    """Return the four kinds of prompts for a training image, the likeliest first.

    They contain the label, the label and some keywords, only keywords, or the label without style.
    """
    others = [k for k in row.keywords if k != row.caption]
    some = [k for k in others if share(f"{row.code}/{k}") < 0.5][:2]
    return [
        prompt_text(row.caption, row.style),
        prompt_text(", ".join([row.caption, *some]), row.style),
        prompt_text(", ".join(others[:3]) or row.caption, row.style),
        row.caption,
    ]


def balanced(rows: Iterable[Row], count: int) -> list[Row]:
    """Return `count` rows with balanced styles, chosen by hash and sorted by label."""
    queues = {s: sorted((r for r in rows if r.style == s), key=_order) for s in STYLES}
    chosen: list[Row] = []
    while len(chosen) < count and any(queues.values()):
        for style in STYLES:
            if queues[style] and len(chosen) < count:
                chosen.append(queues[style].pop())
    return sorted(chosen, key=lambda r: (r.caption, r.style))


def _order(row: Row) -> float:
    return share(f"prompt/{row.caption}/{row.style}")


def make_lists(dataset: Dataset) -> dict[ListName, list[Prompt]]:
    """Return the evaluation list of each split and the calibration list, which are disjoint."""
    drawn = dataset.drawn().rows
    lists: dict[ListName, list[Prompt]] = {}
    for split, count in EVALUATION_SIZES.items():
        rows = balanced([r for r in drawn if r.split == split], count)
        lists[split] = [_prompt(r) for r in rows]  # type: ignore[index]
    train = balanced([r for r in drawn if r.split == "train"], CALIBRATION_SIZE)
    lists["calibration"] = [_prompt(r) for r in train]
    lists["samples"] = [_prompt(r) for r in _samples(drawn)]
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
    unseen = sorted((r for r in drawn if r.split == "unseen_labels"), key=_order)
    labels = list(dict.fromkeys(r.caption for r in unseen))[:UNSEEN_SAMPLES]
    first = [next(r for r in unseen if r.caption == label) for label in labels]
    return [by_name[name] for name in SAMPLES if name in by_name] + first


def _prompt(row: Row) -> Prompt:
    return Prompt(
        prompt_text(row.caption, row.style),
        row.caption,
        row.style,
        row.code,
        judge_saw=not row.judge_test,
        category=style_words(row.style),
    )


def write_lists(lists: dict[ListName, list[Prompt]], folder: Path = PROMPTS_FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, prompts in lists.items():
        lines = [json.dumps(asdict(p), ensure_ascii=False) for p in prompts]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_list(name: ListName, folder: Path = PROMPTS_FOLDER) -> Sequence[Prompt]:
    """Read one fixed prompt list.

    Raises:
        DataError: the file is missing or a line is not a prompt; names file and line.
    """
    path = folder / f"{name}.jsonl"
    if not path.exists():
        raise DataError(f"{path} is missing; lists are {', '.join(LIST_NAMES)}")
    return [_parse(path, n, line) for n, line in enumerate(path.read_text().splitlines(), 1)]


def _parse(path: Path, number: int, line: str) -> Prompt:
    try:
        return Prompt(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}:{number}: not a prompt ({error})") from error
