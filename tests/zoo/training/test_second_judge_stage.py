from __future__ import annotations

import torch
from torch.nn import functional as F

from zoo.training.second_judge_stage import MARGIN, damage_loss


def unit(rows: list[list[float]]) -> torch.Tensor:
    return F.normalize(torch.tensor(rows), dim=-1)


TEXTS = unit([[1.0, 0.0], [0.0, 1.0]])


def test_damage_that_scores_lower_by_the_margin_costs_nothing() -> None:
    images = unit([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert float(damage_loss(images, TEXTS, 1)) == 0


def test_damage_that_scores_as_much_costs_the_margin_and_better_damage_more() -> None:
    same = unit([[1.0, 0.5], [0.0, 1.0], [1.0, 0.5]])
    assert float(damage_loss(same, TEXTS, 1)) == torch.tensor(MARGIN)
    better = unit([[1.0, 0.5], [0.0, 1.0], [1.0, 0.0]])
    assert float(damage_loss(better, TEXTS, 1)) > MARGIN
