"""The training recipes: the schedule of every stage, including its seed."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.training.loop import Schedule


@dataclass(frozen=True)
class Round(Schedule):
    """One round of a denoiser's training.

    Attributes:
        moved: share of a batch's images that are slightly shifted and scaled, against
            overfitting.
    """

    moved: float = 0.0


@dataclass(frozen=True)
class TrainingRecipe:
    """The schedules of all stages, including their seeds."""

    vae: Schedule
    tiny: Schedule
    text: dict[str, Schedule]
    judge: Schedule
    second_judge: Schedule
    denoiser: dict[str, tuple[Round, ...]]
    wordnet_share: float = 0.5


def _first_round(steps: int, seed: int) -> Round:
    """Return a round that ends at half its learning rate, because another one follows."""
    return Round(steps, batch_size=128, lr=2e-3, final_lr_share=0.5, seed=seed, muon=True)


def _last_round(steps: int, seed: int, moved: float = 0.0) -> Round:
    """Return a round whose learning rate ends at zero."""
    return Round(steps, batch_size=128, lr=2e-3, seed=seed, muon=True, moved=moved)


CPU = TrainingRecipe(
    vae=Schedule(steps=3200, batch_size=32, lr=3e-3, ema_decay=0.998, seed=1, muon=True),
    tiny=Schedule(steps=900, batch_size=32, lr=3e-3, ema_decay=0.998, seed=3, muon=True),
    text={
        "s": Schedule(steps=2000, batch_size=256, lr=3e-3, ema_decay=0.998, seed=20),
        "m": Schedule(steps=1600, batch_size=256, lr=2e-3, ema_decay=0.998, seed=20),
        "l": Schedule(steps=1300, batch_size=256, lr=1.2e-3, ema_decay=0.998, seed=20),
    },
    judge=Schedule(steps=3000, batch_size=512, lr=1e-3, ema_decay=0.998, seed=30),
    second_judge=Schedule(steps=2400, batch_size=192, lr=2e-3, ema_decay=0.998, seed=31),
    denoiser={
        "s": (_first_round(600, 41), _last_round(5500, 51)),
        "m": (_first_round(150, 42), _last_round(5000, 52)),
        "l": (_first_round(1140, 43), _last_round(3500, 53), _last_round(5400, 63, moved=0.5)),
    },
)
RECIPES = {"cpu": CPU}
