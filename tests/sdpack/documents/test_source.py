from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from sdpack.documents.source import Source

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "give either path or hub"),
        ({"path": "a", "hub": "b/c", "revision": COMMIT}, "give either path or hub"),
        ({"hub": "b/c", "revision": "main"}, "String should match pattern"),
        ({"path": "a", "subfolder": "unet"}, "belong to hub, not to path"),
    ],
)
def test_a_source_is_a_path_or_a_repository(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Source.model_validate(values)


def test_a_source_in_words_has_its_revision() -> None:
    pinned = Source(hub="b/c", revision=COMMIT, subfolder="unet")
    assert str(pinned) == f"b/c@{COMMIT[:12]}/unet"
    assert str(Source(hub="b/c")) == "b/c@unpinned"
    assert str(Source.model_validate({"path": "parts/unet"})) == "parts/unet"
