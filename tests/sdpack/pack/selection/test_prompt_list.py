from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
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


def listed(*counts: int) -> PromptList:
    names = [name for name, count in zip("abc", counts, strict=True) for _ in range(count)]
    return PromptList([CatalogPrompt(f"{name} {n}", name) for n, name in enumerate(names)])


def test_without_weights_the_order_stays() -> None:
    assert LISTED.weighted({}) is LISTED


def test_a_category_is_drawn_as_often_as_it_counts() -> None:
    found = listed(40, 40, 40).weighted({"a": 2, "b": 0})
    assert [found.categories.count(name) for name in "abc"] == [40, 0, 20]
    assert len(set(found.texts)) == 60


@given(
    st.tuples(*[st.integers(1, 60)] * 3),
    st.tuples(*[st.sampled_from([0.25, 0.5, 1.0, 2.0, 5.0])] * 3),
)
def test_any_first_prompts_have_nearly_the_shares_of_the_weights(
    counts: tuple[int, int, int], weights: tuple[float, float, float]
) -> None:
    """Each category is within one prompt of its share of any first prompts."""
    found = listed(*counts).weighted(dict(zip("abc", weights, strict=True)))
    totals = {name: found.categories.count(name) for name in "abc"}
    assert all(totals[name] >= 1 for name in "abc")
    for seen in range(1, len(found.listed) + 1):
        for name in "abc":
            share = totals[name] * seen / len(found.listed)
            assert abs(found.categories[:seen].count(name) - share) <= 1.5


def test_prompts_come_again_if_more_images_are_wanted() -> None:
    few = PromptList(LISTED.listed[:4])
    assert few.repeated(4) is few
    found = few.repeated(10)
    assert found.texts == [*few.texts, *few.texts, *few.texts[:2]]
    assert found.different == 4
    scores = np.array([0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6, 0.3, 0.7])
    assert found.mean(scores).value == pytest.approx(scores.mean())
    by_category = found.by_category(scores)
    assert {name: count for name, (_, count) in by_category.items()} == {"count": 5, "other": 3}
    assert by_category["other"][0].value == pytest.approx(0.8)
    # One prompt is one sample of the category's prompts, whatever the noise.
    assert by_category["other"][0].low == by_category["other"][0].high
