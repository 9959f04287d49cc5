"""The training loop every stage shares: schedule, EMA, progress, checkpoints, resume.

A stage is a function from (step, generator) to a loss. Each step's randomness is seeded by the
stage's seed and the step alone, so a run that was killed and resumed draws the same batches as
one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn

from zoo.errors import TrainingError
from zoo.training.muon import AdamW, MuonAdamW

Optimizer = AdamW | MuonAdamW
StepFunction = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Schedule:
    """The steps and learning rates of a stage; `lr` rises linearly, then falls as a cosine."""

    steps: int
    batch_size: int
    lr: float
    warmup_steps: int = 200
    final_lr_share: float = 0.02
    ema_decay: float = 0.999
    weight_decay: float = 0.01
    seed: int = 0
    muon: bool = False

    def lr_at(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup_steps)
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        return self.lr * rise * (self.final_lr_share + (1 - self.final_lr_share) * fall)

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Return whether a recorded schedule is this one.

        A record from before a field existed lacks it; the field then had its default.
        """
        defaults = {f.name: f.default for f in fields(self) if f.default is not MISSING}
        return {**defaults, **record} == asdict(self)


@dataclass
class TrainingStage:
    """The training of one model; `fit` sets `model` to its averaged weights.

    Attributes:
        name: the stage's name, and that of its checkpoint.
        model: every trained parameter, in fp32.
        loss: the step function; it must use no randomness but the generator it is given.
        schedule: steps, batch size and rates.
        folder: where `<name>.pt` (checkpoint) and `<name>.jsonl` (loss curve) are kept.
        save_every_s: seconds between checkpoints.
    """

    name: str
    model: nn.Module
    loss: StepFunction
    schedule: Schedule
    folder: Path
    save_every_s: float = 120.0
    clip: float = 1.0
    _average: list[Tensor] = field(default_factory=list, init=False)
    _step: int = field(default=0, init=False)
    _seconds: float = field(default=0.0, init=False)

    @property
    def checkpoint(self) -> Path:
        return self.folder / f"{self.name}.pt"

    def fit(self, report_every: int = 50) -> float:
        """Train to the end, or read the finished checkpoint; return the total seconds of training.

        Raises:
            TrainingError: the loss stopped being finite, or the checkpoint belongs to another
                schedule.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = _optimizer(self.model, self.schedule)
        self._average = [p.detach().clone() for p in parameters]
        self._resume(optimizer)
        if self._step < self.schedule.steps:
            with _progress(self.name, self.schedule.steps, self._step) as show:
                self._run(parameters, optimizer, report_every, show)
        with torch.no_grad():
            for parameter, average in zip(parameters, self._average, strict=True):
                parameter.copy_(average)
        return self._seconds

    def _run(
        self,
        parameters: list[nn.Parameter],
        optimizer: Optimizer,
        report_every: int,
        show: Callable[[int, str], None],
    ) -> None:
        device = parameters[0].device
        since, saved, total = time.monotonic(), time.monotonic(), torch.zeros((), device=device)
        self.model.train()
        for step in range(self._step, self.schedule.steps):
            seed = self.schedule.seed * 1_000_003 + step
            torch.manual_seed(seed)  # what a model draws by itself, as dropout does
            generator = torch.Generator().manual_seed(seed)
            with torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bf16(device)):
                loss = self.loss(step, generator)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, self.clip)
            optimizer.step(self.schedule.lr_at(step))
            self._follow(parameters, step)
            total += loss.detach()
            if (step + 1) % report_every == 0:
                now = time.monotonic()
                self._seconds += now - since
                rate = report_every * self.schedule.batch_size / (now - since)
                self._report(step + 1, total.item() / report_every, rate, show)
                since, total = now, torch.zeros((), device=device)
                if now - saved > self.save_every_s:
                    self._save(step + 1, optimizer)
                    saved = now
        self._seconds += time.monotonic() - since
        self._save(self.schedule.steps, optimizer)

    def _follow(self, parameters: list[nn.Parameter], step: int) -> None:
        decay = min(self.schedule.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(self._average, [p.detach() for p in parameters], 1 - decay)

    def _report(
        self, step: int, loss: float, rate: float, show: Callable[[int, str], None]
    ) -> None:
        if not math.isfinite(loss):
            raise TrainingError(
                f"stage {self.name}: the loss is {loss} at step {step}; the last good checkpoint "
                f"is {self.checkpoint}: lower the stage's lr in its recipe and run again"
            )
        show(step, f"loss {loss:.4f}  {rate:,.0f} samples/s")
        with (self.folder / f"{self.name}.jsonl").open("a") as log:
            entry = {"step": step, "loss": round(loss, 6), "samples_per_s": round(rate, 1)}
            log.write(json.dumps(entry) + "\n")

    def _save(self, step: int, optimizer: Optimizer) -> None:
        self._step = step
        state = {
            "schedule": self.schedule.__dict__,
            "step": step,
            "seconds": self._seconds,
            "model": self.model.state_dict(),
            "average": self._average,
            "optimizer": optimizer.state_dict(),
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def _resume(self, optimizer: Optimizer) -> None:
        if not self.checkpoint.exists():
            return
        state: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        if not self.schedule.matches(state["schedule"]):
            raise TrainingError(
                f"{self.checkpoint} was made with another schedule ({state['schedule']}, now "
                f"{self.schedule.__dict__}); delete it to train this stage from the start"
            )
        self.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        device = self._average[0].device
        self._average = [average.to(device) for average in state["average"]]
        self._step, self._seconds = state["step"], state["seconds"]


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether bfloat16 is faster than float32: on GPUs, and on CPUs with AMX tiles.

    AVX512-BF16 alone is not enough: on a Xeon without AMX convolutions ran 1.8 times slower
    than in float32.
    """
    return device.type == "cuda" or torch.cpu._is_amx_tile_supported()


def _optimizer(model: nn.Module, schedule: Schedule) -> Optimizer:
    make = MuonAdamW if schedule.muon else AdamW
    return make(model, schedule.weight_decay)


@contextmanager
def _progress(name: str, steps: int, start: int) -> Iterator[Callable[[int, str], None]]:
    columns = (
        TextColumn("{task.description:18}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
    )
    times = (TextColumn("{task.fields[note]}"), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, *times) as progress:
        task = progress.add_task(name, total=steps, completed=start, note="")

        def show(step: int, note: str) -> None:
            progress.update(task, completed=step, note=note)
            if not progress.console.is_terminal:
                print(f"{name} {step}/{steps} {note}", flush=True)

        yield show
