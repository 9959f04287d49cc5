"""One run of a recipe, and the data that its stages share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data import dataset
from zoo.data.dataset import Dataset, Row
from zoo.training.loop import Schedule, TrainingStage
from zoo.training.recipes import TrainingRecipe

CHANNELS_LAST = {"memory_format": torch.channels_last}


@dataclass
class TrainingRun:
    """One run of a recipe.

    Attributes:
        folder: folder of checkpoints and intermediate results.
        kept: records of the shipped stages that are used unchanged.
    """

    recipe: TrainingRecipe
    folder: Path
    device: torch.device
    kept: dict[str, Any] = field(default_factory=dict)

    def keeps(self, stage: str, schedule: Schedule) -> bool:
        """Whether the shipped parts contain this stage's result, made with the same schedule."""
        return stage in self.kept and schedule.matches(self.kept[stage]["schedule"])

    def fit(
        self,
        name: str,
        model: nn.Module,
        make_loss: Callable[[], Callable[..., Tensor]],
        schedule: Schedule,
    ) -> None:
        """Train a model for a stage, or resume it.

        Args:
            make_loss: makes the loss; called at the first step, so that a finished stage does not
                prepare its data.
        """
        TrainingStage(name, model, _Deferred(make_loss), schedule, self.folder).fit()

    @cached_property
    def dataset(self) -> Dataset:
        """The data set."""
        return dataset.load()

    @cached_property
    def images(self) -> Tensor:
        """Its images: uint8 (N, 64, 64, 3)."""
        return torch.from_numpy(self.dataset.images)

    def rows(self, keep: Callable[[Row], bool]) -> Tensor:
        """Return the indices of the data set's rows for which `keep` is true."""
        return torch.tensor([i for i, row in enumerate(self.dataset.rows) if keep(row)])


class _Deferred:
    """A loss that prepares its data at the first step, since a finished stage needs none."""

    def __init__(self, make: Callable[[], Callable[..., Tensor]]) -> None:
        self._make = make

    @cached_property
    def _loss(self) -> Callable[..., Tensor]:
        return self._make()

    def __call__(self, step: int, g: torch.Generator) -> Tensor:
        return self._loss(step, g)
