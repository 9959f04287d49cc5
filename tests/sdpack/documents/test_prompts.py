from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from sdpack.documents.catalog_files import prompts_folder
from sdpack.documents.prompts import CatalogPrompt, read_prompt_file
from sdpack.errors import CatalogError

CATEGORIES = {
    "single-object",
    "attribute-binding",
    "count",
    "spatial-relation",
    "action",
    "style",
    "long-description",
    "rendered-text",
    "negation",
    "other-languages",
}


def test_prompts_are_those_of_lines_that_are_not_empty(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"text": "a cat", "label": 1}\n\n'
        '{"text": "un chien", "category": "other", "judged": "a dog", "swapped": "a cow"}\n'
    )
    plain, other = read_prompt_file(path)
    assert plain == CatalogPrompt("a cat")
    assert plain.caption == "a cat"
    assert other == CatalogPrompt("un chien", "other", "a dog", "a cow")
    assert other.caption == "a dog"
    with pytest.raises(CatalogError, match=r"q\.jsonl cannot be read"):
        read_prompt_file(tmp_path / "q.jsonl")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no prompts"),
        ("{", "line 1: not JSON"),
        ('{"text": "a"}\n{"prompt": "b"}', 'line 2: no "text"'),
        ('{"text": " "}', 'no "text"'),
        ('["a"]', 'no "text"'),
        ('{"text": "a", "category": 3}', "line 1: category is 3"),
    ],
)
def test_prompts_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    with pytest.raises(CatalogError, match=said):
        read_prompt_file(path)


def test_every_category_has_48_prompts_and_every_ten_prompts_have_all() -> None:
    prompts = read_prompt_file(prompts_folder() / "evaluation.jsonl")
    assert Counter(prompt.category for prompt in prompts) == dict.fromkeys(CATEGORIES, 48)
    for start in range(0, len(prompts), len(CATEGORIES)):
        assert {p.category for p in prompts[start : start + len(CATEGORIES)]} == CATEGORIES
    assert all(p.swapped not in ("", p.caption) for p in prompts if p.category != "single-object")
    foreign = [p for p in prompts if p.category == "other-languages"]
    assert all(p.judged and p.judged != p.text for p in foreign)
    lengths = [len(p.text.split()) for p in prompts if p.category == "long-description"]
    assert min(lengths) >= 60
    assert max(lengths) <= 120


def test_calibration_prompts_are_of_the_same_categories_and_others() -> None:
    folder = prompts_folder()
    calibration = read_prompt_file(folder / "calibration.jsonl")
    evaluation = {p.text.lower() for p in read_prompt_file(folder / "evaluation.jsonl")}
    assert Counter(prompt.category for prompt in calibration) == dict.fromkeys(CATEGORIES, 8)
    assert not evaluation & {prompt.text.lower() for prompt in calibration}
