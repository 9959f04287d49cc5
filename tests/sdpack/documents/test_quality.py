from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sdpack.documents.quality import JudgeModel, Quality, ReaderModel
from sdpack.documents.source import Source

PROMPTS: dict[str, Any] = {
    "prompts": Path("p.jsonl"),
    "calibration": Path("c.jsonl"),
    "samples": Path("s.jsonl"),
}
JUDGE = {"judge": {"path": "judge"}, "tokenizer": {"path": "tokenizer"}}
OTHER = {"source": {"path": "other"}, "tokenizer": {"path": "tokenizer"}, "licence": "MIT"}


def quality(**values: Any) -> Quality:
    return Quality.model_validate({**PROMPTS, **values})


def test_other_judges_stand_beside_the_one_that_decides() -> None:
    found = quality(**JUDGE, other_judges={"second": OTHER, "text": {"ocr": "rapidocr"}})
    assert list(found.judges) == ["judge", "other_judges.second"]
    assert found.primary == JudgeModel(
        source=Source(path=Path("judge")), tokenizer=Source(path=Path("tokenizer"))
    )
    assert isinstance(found.other_judges["text"], ReaderModel)
    assert found.other_judges["text"].licence == "Apache-2.0"


def test_without_any_judge_there_is_none_that_decides() -> None:
    assert quality().primary is None
    assert quality().judges == {}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"judge": {"path": "judge"}}, "judge and tokenizer belong together"),
        ({"other_judges": {"second": OTHER}}, "second needs a judge beside it"),
        ({**JUDGE, "other_judges": {"text": {"ocr": "other"}}}, "other_judges.text"),
        ({**JUDGE, "other_judges": {"a b": OTHER}}, "not a valid name"),
        ({"views": [{"blur": 0.01}]}, "views are what a judge sees"),
        ({"real_images": "real.png"}, "real_images need a judge"),
    ],
)
def test_judges_that_do_not_go_together_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        quality(**values)
