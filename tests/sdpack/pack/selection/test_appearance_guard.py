from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from sdpack.domain.appearance import AppearanceLimits
from sdpack.errors import EngineError
from sdpack.evaluate.rules import Rules
from sdpack.pack.selection.appearance_guard import AppearanceGuard
from sdpack.progress import TimeIsUp

WANTED = np.random.default_rng(0).integers(60, 190, (32, 16, 16, 3)).astype(np.uint8)


class Ledger:
    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}

    def find(self, kind: str, inputs: Any) -> Any:
        return self.rows.get(f"{kind} {inputs}")

    def record(self, kind: str, inputs: Any, value: Any) -> None:
        self.rows[f"{kind} {inputs}"] = value


class Runner:
    """Gives the images of a pipeline by its name; fp32 pipelines draw WANTED."""

    def __init__(self, images: dict[str, np.ndarray]) -> None:
        self.images = {**images, "fp32": WANTED}
        self.drawn: list[tuple[str, int]] = []

    def inputs(self, spec: Any, numbers: Sequence[int]) -> dict[str, Any]:
        return {"spec": spec.contents, "numbers": list(numbers)}

    def chunks(self, numbers: Sequence[int]) -> list[list[int]]:
        return [list(numbers)[i : i + 8] for i in range(0, len(numbers), 8)]

    def pictures(self, spec: Any, numbers: Sequence[int]) -> np.ndarray:
        self.drawn.append((spec.contents, len(numbers)))
        return self.images[spec.contents][list(numbers)]


def guard(is_large: bool = False, **images: np.ndarray) -> tuple[AppearanceGuard, Any]:
    evaluator = SimpleNamespace(
        runner=Runner(images),
        context=SimpleNamespace(ledger=Ledger()),
        say=lambda line: None,
        rules=Rules(first=16),
        is_large=is_large,
        drawn=dict.fromkeys(images, 32),
        spec=lambda mix: SimpleNamespace(contents=mix),
        reference=lambda mix: SimpleNamespace(contents="fp32"),
    )
    return AppearanceGuard(cast(Any, evaluator), AppearanceLimits()), evaluator


def test_a_mix_like_fp32_may_win_and_a_tinted_one_may_not() -> None:
    tinted = np.clip(WANTED + np.array([12, 0, 0]), 0, 255).astype(np.uint8)
    made, _ = guard(same=WANTED, tinted=tinted)
    same, other = made.check(cast(Any, "same")), made.check(cast(Any, "tinted"))
    assert same is not None
    assert other is not None
    assert (same.images, same.why_not) == (16, "")
    assert other.found.colour_offset == pytest.approx(12)
    assert "colour is off by 12.0 levels" in other.why_not


def test_nothing_is_compared_twice() -> None:
    made, evaluator = guard(same=WANTED)
    first = made.check(cast(Any, "same"))
    count = len(evaluator.runner.drawn)
    again = AppearanceGuard(cast(Any, evaluator), AppearanceLimits())
    assert again.check(cast(Any, "same")) == first
    assert len(evaluator.runner.drawn) == count


def test_fewer_large_images_are_compared_and_no_more_than_are_drawn() -> None:
    made, evaluator = guard(is_large=True, same=WANTED)
    found = made.check(cast(Any, "same"))
    assert found is not None
    assert found.images == 2
    made, evaluator = guard(same=WANTED)
    evaluator.rules = Rules(first=16, most=5)
    found = made.check(cast(Any, "same"))
    assert found is not None
    assert found.images == 5


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> AppearanceGuard:
    def refused(*_: object) -> np.ndarray:
        raise error

    made, _ = guard(same=WANTED)
    monkeypatch.setattr(Runner, "pictures", refused)
    return made


def test_a_mix_that_cannot_be_compared_may_win(monkeypatch: pytest.MonkeyPatch) -> None:
    made = failing(monkeypatch, EngineError("no memory"))
    assert made.check(cast(Any, "same")) is None


def test_a_time_limit_is_left_to_the_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    made = failing(monkeypatch, TimeIsUp())
    with pytest.raises(TimeIsUp):
        made.check(cast(Any, "same"))


def test_what_was_compared_before_is_known_without_drawing() -> None:
    made, evaluator = guard(same=WANTED)
    assert made.known(cast(Any, "same")) is None
    found = made.check(cast(Any, "same"))
    again = AppearanceGuard(cast(Any, evaluator), AppearanceLimits())
    assert again.known(cast(Any, "same")) == found
