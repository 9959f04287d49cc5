"""The format of the zoo's prompts, and the fixed prompt lists of all measurements.

A prompt is `"<style>, <label>"`, for instance "fluent 3d, hatching chick". The style comes first,
so that truncation of a long caption never removes the style.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from zoo.data.dataset import STYLES, Row, Style, share
from zoo.errors import DataError

PROMPTS_FOLDER = Path(__file__).parents[1] / "prompts"

ListName = Literal["unseen_pairs", "unseen_labels", "by_category", "calibration", "samples"]
LIST_NAMES: tuple[ListName, ...] = get_args(ListName)


@dataclass(frozen=True)
class Prompt:
    """One line of a prompt list; `code` and `style` name the real image that belongs to it.

    The judge may have been trained on that image (`judge_saw`); its scores of such images are too
    high. It was not trained on generated images.

    Attributes:
        category: by which sdpack reports scores: the style in words, except in `by_category`.
        judged: the caption that images are compared with, if it is not the text.
        swapped: a caption that is wrong in one detail.
    """

    text: str
    label: str
    style: Style
    code: str
    judge_saw: bool = False
    category: str = ""
    judged: str = ""
    swapped: str = ""


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
    queues = {s: sorted((r for r in rows if r.style == s), key=order_of) for s in STYLES}
    chosen: list[Row] = []
    while len(chosen) < count and any(queues.values()):
        for style in STYLES:
            if queues[style] and len(chosen) < count:
                chosen.append(queues[style].pop())
    return sorted(chosen, key=lambda r: (r.caption, r.style))


def order_of(row: Row) -> float:
    """Return the number in [0, 1) by which rows are chosen."""
    return share(f"prompt/{row.caption}/{row.style}")


def prompt_of(
    row: Row, category: str = "", text: str = "", judged: str = "", swapped: str = ""
) -> Prompt:
    """Return the prompt of a row; without a category or a text, its style and its usual text."""
    return Prompt(
        text or prompt_text(row.caption, row.style),
        row.caption,
        row.style,
        row.code,
        judge_saw=not row.judge_test,
        category=category or style_words(row.style),
        judged=judged,
        swapped=swapped,
    )


def write_lists(lists: dict[ListName, list[Prompt]], folder: Path = PROMPTS_FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, prompts in lists.items():
        lines = [json.dumps(_values(p), ensure_ascii=False) for p in prompts]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _values(prompt: Prompt) -> dict[str, Any]:
    """Return the fields of a line, without captions that are empty."""
    optional = ("judged", "swapped")
    return {k: v for k, v in asdict(prompt).items() if v or k not in optional}


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
