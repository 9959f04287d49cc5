from __future__ import annotations

import pytest
from pydantic import ValidationError
from sdpack.documents.evidence import Evidence

from tests.sdpack.documents.test_bundle import manifest

EVIDENCE = manifest().evidence


def test_the_winner_is_the_first_standing() -> None:
    first = EVIDENCE.standings[0]
    second = first.model_copy(update={"mix": "another", "fate": "worse"})
    both = EVIDENCE.model_copy(update={"standings": (first, second)})
    assert both.winner is first


def test_evidence_of_schema_1_has_no_rule_and_survives_json() -> None:
    assert EVIDENCE.rule is None
    assert Evidence.model_validate_json(EVIDENCE.model_dump_json()) == EVIDENCE


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"standings": []}, "standings"),
        ({"quality": {**EVIDENCE.quality.model_dump(), "pictures": 0}}, "quality.pictures"),
        ({"tiled_difference": -1}, "tiled_difference"),
        ({"winner": "s"}, "winner"),
    ],
)
def test_invalid_evidence_is_refused_and_its_key_named(
    changes: dict[str, object], where: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Evidence.model_validate({**EVIDENCE.model_dump(), **changes})
    assert [".".join(map(str, each["loc"])) for each in caught.value.errors()] == [where]
