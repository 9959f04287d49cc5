"""A prompt list whose categories ask for different abilities of a text encoder.

The other lists have one category per style, and every prompt is a style and a label. These ask
where language knowledge should pay: labels of no training image, colour words, and keywords
without the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from zoo.data.dataset import Row
from zoo.data.prompts import Prompt, balanced, prompt_of, prompt_text

CATEGORY_SIZE = 48
KEYWORDS = 3  # of a prompt
COLOURED = frozenset(("apple", "bird", "book", "cat", "flower", "heart", "mushroom"))
OTHER_COLOURS = {
    "red": "blue",
    "blue": "red",
    "green": "purple",
    "purple": "green",
    "yellow": "black",
    "black": "yellow",
    "orange": "blue",
    "brown": "green",
    "white": "red",
    "pink": "blue",
    "grey": "orange",
}


def prompts_by_category(drawn: Sequence[Row], left_out: frozenset[str]) -> list[Prompt]:
    """Return `CATEGORY_SIZE` prompts of each category, in turn; fewer if there are too few rows.

    Args:
        drawn: the rows that the denoisers are trained and measured on.
        left_out: texts that must not occur, as they are used for calibration.
    """
    rows = [row for row in drawn if _text(row) not in left_out]
    of_split = {
        split: [row for row in rows if row.split == split and not _other_colour(row.caption)]
        for split in ("train", "unseen_pairs", "unseen_labels")
    }
    described = [row for row in of_split["unseen_pairs"] if len(_keywords(row)) == KEYWORDS]
    keyword_rows = balanced(described, CATEGORY_SIZE)
    pairs = [row for row in of_split["unseen_pairs"] if row not in keyword_rows]
    coloured = [row for row in rows if _other_colour(row.caption)]
    categories = (
        [prompt_of(row, "seen") for row in balanced(of_split["train"], CATEGORY_SIZE)],
        [prompt_of(row, "unseen pairs") for row in balanced(pairs, CATEGORY_SIZE)],
        [prompt_of(row, "unseen labels") for row in one_per_label(of_split["unseen_labels"])],
        [_coloured(row) for row in balanced(coloured, CATEGORY_SIZE)],
        [_by_keywords(row) for row in keyword_rows],
    )
    return [prompt for turn in zip_longest(*categories) for prompt in turn if prompt is not None]


def one_per_label(rows: Sequence[Row]) -> list[Row]:
    """Return rows of as many labels as possible, as another style adds little."""
    labels: dict[str, list[Row]] = {}
    for row in balanced(rows, len(rows)):
        labels.setdefault(row.caption, []).append(row)
    queues = list(labels.values())
    by_turn = [
        queue[(turn + place) % len(queue)]
        for turn in range(max(map(len, queues), default=0))
        for place, queue in enumerate(queues)
        if turn < len(queue)
    ]
    return by_turn[:CATEGORY_SIZE]


def _coloured(row: Row) -> Prompt:
    swapped = prompt_text(_other_colour(row.caption), row.style)
    return prompt_of(row, "colour words", swapped=swapped)


def _by_keywords(row: Row) -> Prompt:
    text = prompt_text(", ".join(_keywords(row)), row.style)
    return prompt_of(row, "keywords", text=text, judged=_text(row))


def _keywords(row: Row) -> list[str]:
    return [word for word in row.keywords if word != row.caption][:KEYWORDS]


def _other_colour(caption: str) -> str:
    """Return the caption with another colour; empty if it does not begin with a colour."""
    colour, _, thing = caption.partition(" ")
    if colour not in OTHER_COLOURS or thing not in COLOURED:
        return ""
    return f"{OTHER_COLOURS[colour]} {thing}"


def _text(row: Row) -> str:
    return prompt_text(row.caption, row.style)
