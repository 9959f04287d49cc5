from __future__ import annotations

import pytest
from sdpack.domain.category_weights import full_names, parse_weights
from sdpack.errors import InputError

KNOWN = ["rendered-text", "count", "style", "count", ""]


def test_weights_are_parsed_and_named_in_full() -> None:
    parsed = parse_weights("text=2, count=0")
    assert parsed == {"text": 2, "count": 0}
    assert full_names(parsed, KNOWN) == {"rendered-text": 2, "count": 0}
    assert full_names({}, []) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("text", "not a name and a weight"),
        ("=2", "not a name and a weight"),
        ("text=", "weight of text is ''"),
        ("text=-1", "weight of text is '-1'"),
        ("text=nan", "weight of text is 'nan'"),
        ("text=inf", "weight of text is 'inf'"),
        ("text=1,text=2", "names text twice"),
    ],
)
def test_wrong_weights_are_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_weights(text)


@pytest.mark.parametrize(
    ("weights", "categories", "said"),
    [
        ({"text": 2}, ["", ""], "have no categories"),
        ({"colour": 2}, KNOWN, "colour is no category; the categories are rendered-text, count"),
        ({"t": 2}, KNOWN, "t is several categories"),
        ({"text": 2, "rendered": 1}, KNOWN, "names rendered-text twice"),
        ({"text": 0, "count": 0, "style": 0}, KNOWN[:-1], "every category has the weight 0"),
    ],
)
def test_names_of_no_single_category_are_refused(
    weights: dict[str, float], categories: list[str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        full_names(weights, categories)
