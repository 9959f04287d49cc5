from collections.abc import Sequence

import torch
from sdpack.evaluate.metrics import Panel, similarity

from zoo.data.prompts import Prompt
from zoo.evaluation import metrics


class WordPanel(Panel):
    """Embeds a text as the one-hot of its label's number, so that answers are known."""

    def __init__(self) -> None:
        pass

    def embed_texts(self, texts: Sequence[str], batch_size: int = 512) -> torch.Tensor:
        return torch.stack([one_hot(int(t.split()[-1])) for t in texts])


def one_hot(number: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(number), 300).float()


LABELS = [f"label {n}" for n in range(300)]
PROMPTS = [Prompt(f"noto, label {n}", f"label {n}", "noto", "0") for n in range(10)]


def test_a_perfect_picture_beats_99_other_captions() -> None:
    embedded = torch.stack([one_hot(n) for n in range(10)])
    assert metrics.r_precision(WordPanel(), embedded, PROMPTS, LABELS).tolist() == [1.0] * 10
    texts = [p.text for p in PROMPTS]
    assert similarity(WordPanel(), embedded, texts).tolist() == [1.0] * 10


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
