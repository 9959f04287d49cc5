from types import SimpleNamespace
from typing import Any

import pytest
from sdpack.domain.precision import Precision
from sdpack.pack.mixed.choices import Choices
from sdpack.pack.mixed.propose import Proposals

LEAST = 1000


def tried(
    monkeypatch: pytest.MonkeyPatch, precisions: list[Precision], is_large: bool, budget: int
) -> list[bool]:
    """For each set of parts that is tried, whether only shared choices are offered."""
    tries: list[bool] = []

    def proposed(_: Proposals, __: Any, choices: Choices) -> None:
        tries.append(choices.shared)

    monkeypatch.setattr(Proposals, "_widest", lambda _: [("widest", LEAST)])
    monkeypatch.setattr(Proposals, "_measure_ahead", lambda *_: None)
    monkeypatch.setattr(Proposals, "_proposed", proposed)
    request = SimpleNamespace(is_large=is_large, precisions=precisions)
    toolchain: Any = SimpleNamespace(
        context=SimpleNamespace(precisions=precisions),
        candidates=SimpleNamespace(request=request),
        calibration=None,
        variants=None,
    )
    footprints: Any = None
    assert list(Proposals(toolchain, footprints, [], budget).mixes()) == []
    return tries


@pytest.mark.parametrize(
    ("is_large", "budget", "shared"),
    [(True, 5 * LEAST // 4, True), (True, 5 * LEAST // 4 - 1, False), (False, 9 * LEAST, False)],
)
def test_wider_blocks_are_offered_for_large_images_only_in_a_tight_budget(
    monkeypatch: pytest.MonkeyPatch, is_large: bool, budget: int, shared: bool
) -> None:
    precisions = [Precision.FP16, Precision.W4]
    assert tried(monkeypatch, precisions, is_large, budget) == [shared]


def test_nothing_is_tried_if_no_scheme_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert tried(monkeypatch, [Precision.FP32, Precision.FP16], False, LEAST) == []
