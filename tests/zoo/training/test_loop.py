import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from zoo.errors import TrainingError
from zoo.training.loop import Schedule, TrainingStage

SCHEDULE = Schedule(steps=40, batch_size=8, lr=0.05, warmup_steps=5, ema_decay=0.9, seed=3)


class KilledError(Exception):
    pass


def stage(
    folder: Path, schedule: Schedule = SCHEDULE, killed_at: int | None = None
) -> tuple[TrainingStage, nn.Linear]:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss(step: int, g: torch.Generator) -> Tensor:
        if step == killed_at:
            raise KilledError
        x = torch.randn(schedule.batch_size, 3, generator=g)
        apart: Tensor = model(x) - x.sum(1, keepdim=True)
        return apart.square().mean()

    return TrainingStage("line", model, loss, schedule, folder, save_every_s=0.0), model


@pytest.mark.parametrize("muon", [False, True])
def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path: Path, muon: bool) -> None:
    schedule = dataclasses.replace(SCHEDULE, muon=muon)
    whole, undisturbed = stage(tmp_path / "a", schedule)
    whole.fit(report_every=10)
    killed, _ = stage(tmp_path / "b", schedule, killed_at=27)
    with pytest.raises(KilledError):
        killed.fit(report_every=10)
    again, resumed = stage(tmp_path / "b", schedule)
    again.fit(report_every=10)
    assert torch.equal(undisturbed.weight, resumed.weight)


def test_a_finished_stage_runs_no_step(tmp_path: Path) -> None:
    first, trained = stage(tmp_path)
    first.fit()
    second, read = stage(tmp_path, killed_at=0)
    second.fit()
    assert torch.equal(trained.weight, read.weight)


def test_training_moves_towards_the_answer(tmp_path: Path) -> None:
    one, model = stage(tmp_path, dataclasses.replace(SCHEDULE, steps=300))
    one.fit()
    assert torch.allclose(model.weight, torch.ones(1, 3), atol=0.05)


def test_another_schedule_is_not_resumed(tmp_path: Path) -> None:
    stage(tmp_path)[0].fit()
    with pytest.raises(TrainingError, match="another schedule"):
        stage(tmp_path, dataclasses.replace(SCHEDULE, lr=0.1))[0].fit()


def test_a_loss_that_is_not_finite_stops_the_stage(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    bad = TrainingStage(
        "bad", model, lambda step, g: model.weight.sum() * torch.inf, SCHEDULE, tmp_path
    )
    with pytest.raises(TrainingError, match="stage bad: the loss is"):
        bad.fit(report_every=10)


def test_the_loss_curve_is_kept(tmp_path: Path) -> None:
    stage(tmp_path)[0].fit(report_every=10)
    lines = [json.loads(x) for x in (tmp_path / "line.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in lines] == [10, 20, 30, 40]
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_the_rate_rises_then_falls_to_its_share() -> None:
    s = Schedule(steps=1000, batch_size=1, lr=1.0, warmup_steps=10, final_lr_share=0.02)
    assert s.lr_at(0) == pytest.approx(0.1, rel=1e-3)
    assert s.lr_at(500) == pytest.approx(0.02 + 0.98 * 0.5)
    assert s.lr_at(1000) == pytest.approx(0.02)


def test_a_record_without_a_field_was_made_with_its_default() -> None:
    record = dataclasses.asdict(SCHEDULE)
    del record["muon"]
    assert SCHEDULE.matches(record)
    assert not dataclasses.replace(SCHEDULE, muon=True).matches(record)
    assert not SCHEDULE.matches({**record, "seed": 4})


def test_a_checkpoint_from_before_a_field_is_resumed(tmp_path: Path) -> None:
    first, trained = stage(tmp_path)
    first.fit()
    state = torch.load(first.checkpoint, weights_only=True)
    del state["schedule"]["muon"]
    torch.save(state, first.checkpoint)
    second, read = stage(tmp_path, killed_at=0)
    second.fit()
    assert torch.equal(trained.weight, read.weight)
