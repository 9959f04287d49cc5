from __future__ import annotations

import numpy as np
import pytest
from sdpack.documents.prompts import CatalogPrompt
from sdpack.domain.workload import WORKLOAD
from sdpack.pack.selection.prompt_list import PromptList

LISTED = PromptList(
    [
        CatalogPrompt("three apples", "count"),
        CatalogPrompt("ein Hund", "other", judged="a dog"),
        CatalogPrompt("two pears", "count"),
        CatalogPrompt("a cat"),
    ]
    * 10
)


def test_scores_are_averaged_by_category() -> None:
    found = LISTED.by_category(np.array([0.1, 0.9, 0.3, 0.7, 0.2]))
    assert {name: count for name, (_, count) in found.items()} == {"count": 3, "other": 1}
    assert found["count"][0].value == pytest.approx(0.2)
    assert found["other"][0].value == pytest.approx(0.9)
    assert PromptList([CatalogPrompt("a cat")]).categories == ()
    assert PromptList([CatalogPrompt("a cat")]).by_category(np.array([0.5])) == {}


def test_texts_that_nobody_draws_are_left_out_where_few_are_drawn() -> None:
    few = LISTED.evaluation_set(64, 64, 2)
    assert list(few.prompts) == ["three apples", "ein Hund"]
    assert list(few.captions) == ["three apples", "a dog"]
    many = LISTED.evaluation_set(64, 64, WORKLOAD.batch)
    assert list(many.prompts) == LISTED.texts
