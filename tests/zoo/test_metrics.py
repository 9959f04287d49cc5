import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo import metrics
from zoo.prompts import Prompt


class WordPanel(metrics.Panel):
    """Embeds a text as the one-hot of its label's number, so that answers are known."""

    def __init__(self) -> None:
        pass

    def embed_texts(self, texts: list[str], batch_size: int = 512) -> torch.Tensor:
        return torch.stack([one_hot(int(t.split()[-1])) for t in texts])


def one_hot(number: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(number), 300).float()


LABELS = [f"label {n}" for n in range(300)]
PROMPTS = [Prompt(f"noto, label {n}", f"label {n}", "noto", "0") for n in range(10)]


def test_a_perfect_picture_beats_99_other_captions() -> None:
    embedded = torch.stack([one_hot(n) for n in range(10)])
    assert metrics.r_precision(WordPanel(), embedded, PROMPTS, LABELS).tolist() == [1.0] * 10
    assert metrics.similarity(WordPanel(), embedded, PROMPTS).tolist() == [1.0] * 10


def test_a_picture_of_a_distractor_misses() -> None:
    others = [int(metrics.distractors(p, LABELS)[0].split()[-1]) for p in PROMPTS]
    embedded = torch.stack([one_hot(n) for n in others])
    assert metrics.r_precision(WordPanel(), embedded, PROMPTS, LABELS).sum() == 0


def test_distractors_are_99_fixed_others_in_the_same_style() -> None:
    first = metrics.distractors(PROMPTS[0], LABELS)
    assert first == metrics.distractors(PROMPTS[0], LABELS[::-1])
    assert len(set(first)) == 99
    assert PROMPTS[0].text not in first
    assert all(t.startswith("noto, ") for t in first)


def test_kid_is_the_mean_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)), rng.normal(1, 1, size=(5, 4))
    k = lambda a, b: (a @ b / 4 + 1) ** 3  # noqa: E731
    xx = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    seen = metrics.kid(torch.from_numpy(x), torch.from_numpy(y))
    assert seen.value == pytest.approx(1000 * (xx + yy - 2 * xy))


def test_kid_of_one_distribution_is_near_zero_and_its_interval_holds_zero() -> None:
    rng = np.random.default_rng(1)
    x, y = (torch.from_numpy(rng.normal(size=(200, 8))) for _ in range(2))
    same, other = metrics.kid(x, y), metrics.kid(x, y + 1)
    assert same.low < 0 < same.high
    assert other.low > same.high


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=50))
def test_the_interval_holds_the_mean_and_stays_within_the_values(values: list[float]) -> None:
    estimate = metrics.mean_estimate(np.array(values))
    assert min(values) - 1e-9 <= estimate.low <= estimate.value + 1e-9
    assert estimate.value - 1e-9 <= estimate.high <= max(values) + 1e-9


def test_the_interval_agrees_with_scipy_s_bootstrap() -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(2).random(300)
    theirs = bootstrap((values,), np.mean, method="percentile", rng=0).confidence_interval
    mine = metrics.mean_estimate(values)
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=4e-3)
