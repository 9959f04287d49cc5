from collections import Counter

from zoo.data import categories, prompts
from zoo.data.dataset import STYLES, UNSEEN_LABEL_SHARE, Row, share
from zoo.data.prompts import Prompt


def _of(category: str) -> list[Prompt]:
    return [p for p in prompts.read_list("by_category") if p.category == category]


def test_consecutive_prompts_have_all_categories() -> None:
    listed = prompts.read_list("by_category")
    assert set(Counter(p.category for p in listed).values()) == {categories.CATEGORY_SIZE}
    names = {p.category for p in listed}
    for start in range(0, len(listed), len(names)):
        assert {p.category for p in listed[start : start + len(names)]} == names


def test_no_prompt_is_calibrated_on_or_occurs_twice() -> None:
    texts = [p.text for p in prompts.read_list("by_category")]
    assert len(texts) == len(set(texts))
    assert not set(texts) & {p.text for p in prompts.read_list("calibration")}


def _is_unseen(label: str) -> bool:
    return share(f"label/{label}") < UNSEEN_LABEL_SHARE


def test_unseen_labels_are_those_of_the_split() -> None:
    found = {p.label for p in _of("unseen labels")}
    assert len(found) == categories.CATEGORY_SIZE
    assert all(map(_is_unseen, found))
    for category in ("seen", "unseen pairs", "keywords"):
        assert not any(_is_unseen(p.label) for p in _of(category))


def test_colour_words_are_swapped_for_others() -> None:
    for prompt in _of("colour words"):
        colour, thing = prompt.label.split(" ")
        other = categories.OTHER_COLOURS[colour]
        assert other != colour
        assert prompt.swapped == prompt.text.replace(f"{colour} {thing}", f"{other} {thing}")


def test_keywords_do_not_name_the_label_and_are_judged_by_it() -> None:
    for prompt in _of("keywords"):
        assert prompt.label not in prompt.text.split(", ")[1:]
        assert prompt.judged.endswith(f", {prompt.label}")


def test_a_label_comes_again_only_after_all_others() -> None:
    rows = [
        Row("0", style, label, (), "objects", "tool", "unseen_labels")
        for style in STYLES
        for label in ("bell", "drum", "horn")
    ]
    chosen = categories.one_per_label(rows)
    assert [len({r.caption for r in chosen[i : i + 3]}) for i in range(0, 18, 3)] == [3] * 6
    assert len({(r.caption, r.style) for r in chosen}) == len(rows)
