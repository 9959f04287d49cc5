from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sdpack.documents.catalog_files import default_catalog
from sdpack.documents.quality import Quality
from sdpack.documents.source import Source
from sdpack.pack.forecast import judge_costs as module
from sdpack.pack.forecast.judge_costs import judge_costs

FILES: dict[str, Any] = {"prompts": "p", "calibration": "c", "samples": "s"}
HUB = {"hub": "owner/judge", "revision": "a" * 40}


def costs(quality: Quality, folder: Path) -> dict[str, module.JudgeCost]:
    def is_here(source: Source) -> bool:
        return source.path is not None

    def folder_of(source: Source) -> Path:
        assert source.path is not None
        return folder / source.path

    return {each.name: each for each in judge_costs(quality, is_here, folder_of)}


def test_a_judge_that_is_here_costs_no_download_and_its_weights_in_fp32() -> None:
    zoo = default_catalog()
    found = costs(zoo.catalog.quality, zoo.folder)["judge"]
    assert found.decides
    assert found.fetch_bytes == 0
    # Batch normalization's counters are stored as well.
    assert found.parameters == pytest.approx(4_453_074, rel=0.01)
    assert found.memory_bytes == pytest.approx(4 * 4_453_074, rel=0.01)
    assert found.licence == "Apache-2.0"


def test_judges_of_the_hub_are_downloaded_and_a_reader_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "remote_bytes", lambda source: 5000)
    quality = Quality.model_validate(
        {
            **FILES,
            "judge": HUB,
            "tokenizer": HUB,
            "other_judges": {
                "answers": {"source": HUB, "licence": "MIT"},
                "text": {"ocr": "rapidocr"},
            },
        }
    )
    found = costs(quality, Path())
    assert list(found) == ["judge", "other_judges.answers", "other_judges.text"]
    assert [each.decides for each in found.values()] == [True, False, False]
    assert [each.fetch_bytes for each in found.values()] == [5000, 5000, 0]
    assert [each.licence for each in found.values()] == ["", "MIT", "Apache-2.0"]
    assert found["judge"].memory_bytes is None


def test_without_judges_nothing_costs_anything() -> None:
    assert costs(Quality.model_validate(FILES), Path()) == {}
