from collections import Counter
from pathlib import Path

import pytest

from zoo.data import dataset as data
from zoo.data import prompts
from zoo.errors import DataError
from zoo.evaluation.evaluate import read_labels


@pytest.mark.parametrize("name", ["unseen_pairs", "unseen_labels"])
def test_evaluation_lists_are_long_enough_and_styles_balanced(name: prompts.ListName) -> None:
    styles = Counter(p.style for p in prompts.read_list(name))
    assert styles.total() >= 256
    assert max(styles.values()) - min(styles.values()) <= 1
    assert set(styles) == set(data.STYLES)


def test_no_prompt_stands_in_two_lists() -> None:
    measured: list[prompts.ListName] = ["unseen_pairs", "unseen_labels", "calibration"]
    texts = [p.text for name in measured for p in prompts.read_list(name)]
    assert len(texts) == len(set(texts))


def test_unseen_labels_are_in_no_other_list() -> None:
    unseen = {p.label for p in prompts.read_list("unseen_labels")}
    others = {p.label for n in ("unseen_pairs", "calibration") for p in prompts.read_list(n)}
    assert not unseen & others


def test_the_lists_agree_with_the_hash_that_cut_the_splits() -> None:
    for prompt in prompts.read_list("unseen_labels"):
        assert data.share(f"label/{prompt.label}") < data.UNSEEN_LABEL_SHARE
    for prompt in prompts.read_list("unseen_pairs"):
        assert data.share(f"label/{prompt.label}") >= data.UNSEEN_LABEL_SHARE
        assert data.share(f"pair/{prompt.label}/{prompt.style}") < data.UNSEEN_PAIR_SHARE


def test_every_prompt_says_its_style_and_a_known_label() -> None:
    labels = set(read_labels())
    for name in prompts.LIST_NAMES:
        for prompt in prompts.read_list(name):
            assert prompt.label in labels
            text = f"{prompt.style.replace('-', ' ')}, {prompt.label}"
            assert (prompt.judged or prompt.text) == text


def test_balanced_takes_turns_among_styles() -> None:
    rows = [
        data.Row("0", style, f"{style} {n}", (), "objects", "tool")
        for style in data.STYLES
        for n in range(5)
    ]
    assert Counter(r.style for r in prompts.balanced(rows, 14)).most_common()[-1][1] == 2


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "calibration.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match=r"calibration\.jsonl:1"):
        prompts.read_list("calibration", tmp_path)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"calibration\.jsonl is missing"):
        prompts.read_list("calibration", tmp_path)
