from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from sdpack.documents.catalog_files import LocatedCatalog, default_catalog
from sdpack.domain.arrays import Float64Array
from sdpack.errors import CatalogError
from sdpack.evaluate.judge_check import CaptionedImages
from sdpack.pack.judging import primary_check
from sdpack.pack.judging.primary_check import check_primary
from sdpack.runtime.pipeline import Pictures
from sdpack.store.ledger import Ledger


@dataclass
class Judging:
    """Prefers smooth images if `sign` is -1, else sharp ones; a caption's first letter counts."""

    located: LocatedCatalog
    sign: float
    is_judged: bool = True
    primary_content: str = "judge"
    real_content: str = "real"
    asked: int = 0

    def primary_score(self, images: Pictures, captions: Sequence[str]) -> Float64Array:
        self.asked += 1
        apart = np.abs(np.diff(images.astype(float), axis=1)).mean(axis=(1, 2, 3))
        right = np.array([ord(caption.rpartition(", ")[2][0]) % 7 for caption in captions])
        return np.asarray(self.sign * apart + 0.01 * right)


def toolchain(folder: Path) -> Any:
    context = SimpleNamespace(ledger=Ledger(folder / "ledger.sqlite"), say=lambda line: None)
    candidates = SimpleNamespace(folder=lambda source: Path())
    return SimpleNamespace(
        context=context, candidates=candidates, request=SimpleNamespace(located=default_catalog())
    )


def judging(monkeypatch: pytest.MonkeyPatch, sign: float) -> Judging:
    found = Judging(default_catalog(), sign)
    monkeypatch.setattr(primary_check, "CatalogJudge", lambda located, folder: found)
    return found


def test_a_judge_that_rewards_blur_is_refused_each_time_and_checked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, tools = judging(monkeypatch, -1.0), cast(Any, toolchain(tmp_path))
    with pytest.raises(CatalogError, match=r"quality\.judge: .* after damage \(.*blur"):
        check_primary(tools)
    asked = judge.asked
    with pytest.raises(CatalogError, match="blur"):
        check_primary(tools)
    assert judge.asked == asked > 0


def test_a_judge_that_rewards_noise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judging(monkeypatch, 1.0)
    with pytest.raises(CatalogError, match="noise"):
        check_primary(toolchain(tmp_path))


def test_the_zoos_judge_is_accepted(tmp_path: Path) -> None:
    tools = toolchain(tmp_path)
    folder = tools.request.located.folder
    tools.candidates.folder = lambda source: folder / source.path
    check_primary(tools)


def test_a_catalog_without_a_judge_is_not_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = judging(monkeypatch, -1.0)
    judge.is_judged = False
    check_primary(toolchain(tmp_path))
    assert judge.asked == 0


def test_images_that_share_one_caption_are_not_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = judging(monkeypatch, -1.0)
    given = CaptionedImages("real", np.zeros((16, 8, 8, 3), np.uint8), ["an icon"] * 16)
    monkeypatch.setattr(primary_check, "real", lambda located, count: given)
    check_primary(toolchain(tmp_path))
    assert judge.asked == 0
