"""diffusers' own scheduler, run once on coordinate vectors, gives the sampler table.

The "latents" are the coordinates of a vector in the basis (start, model outputs, noise draws),
so whatever a linear scheduler does to them is the row of coefficients it stands for.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from sdpack.errors import SchedulerError, SourceError
from sdpack.runtime.sampler import SamplerTable

TOLERANCE = 1e-4
NONLINEAR_SETTINGS = ("thresholding", "clip_sample")


def load_scheduler(folder: Path) -> Any:
    """The diffusers scheduler of a folder with a scheduler_config.json.

    Raises:
        SourceError: there is none, or diffusers has no such class.
    """
    import diffusers

    path = folder / "scheduler_config.json"
    try:
        name = json.loads(path.read_text())["_class_name"]
        found = getattr(diffusers, name, None)
        if not (isinstance(found, type) and issubclass(found, diffusers.SchedulerMixin)):
            raise SourceError(f"{path}: diffusers has no scheduler {name!r}; check _class_name")
        return cast(Any, found).from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise SourceError(f"{path}: no scheduler's config ({cause!r})") from cause


def sampler_table(scheduler: Any, steps: int) -> SamplerTable:
    """The table of a diffusers scheduler at `steps` steps; the scheduler itself is left as it was.

    Raises:
        SchedulerError: it is not linear, or draws noise in a way of its own.
    """
    name = type(scheduler).__name__
    on = [key for key in NONLINEAR_SETTINGS if getattr(scheduler.config, key, False)]
    if on:
        raise SchedulerError(f"{name} with {on[0]} is not linear; set it to false in its config")
    try:
        table = _table(scheduler, name, steps)
        worst = _disagreement(scheduler, table)
    except (ValueError, TypeError, RuntimeError, NotImplementedError, IndexError) as cause:
        raise SchedulerError(f"{name} cannot be run at {steps} steps: {cause}") from cause
    if not worst < TOLERANCE:
        raise SchedulerError(
            f"{name} at {steps} steps is not linear, or draws noise of its own (its table is off "
            f"by {worst:.1e}); choose another scheduler, for instance DPMSolverMultistepScheduler"
        )
    return table


def _prepared(scheduler: Any, steps: int) -> tuple[Any, list[Any]]:
    fresh = copy.deepcopy(scheduler)
    fresh.set_timesteps(steps)
    return fresh, list(fresh.timesteps)


def _table(scheduler: Any, name: str, steps: int) -> SamplerTable:
    """Run on coordinates, with room for one draw a call; unused draws are cut off."""
    fresh, timesteps = _prepared(scheduler, steps)
    calls = len(timesteps)
    width = 1 + 2 * calls

    def coordinate(number: int) -> Tensor:
        vector = torch.zeros(1, 1, 1, width, dtype=torch.float64)
        vector[..., number] = 1
        return vector

    drawn = 0

    def draw() -> Tensor:
        nonlocal drawn
        drawn += 1
        return coordinate(calls + drawn)

    outputs = [coordinate(1 + k) for k in range(calls)]
    inputs, samples = _run(fresh, timesteps, coordinate(0), lambda k, _: outputs[k], draw)
    used = 1 + calls + drawn
    return SamplerTable(
        name,
        steps,
        np.array([float(t) for t in timesteps]),
        np.stack([x.numpy().reshape(-1)[:used] for x in inputs]).astype(np.float64),
        np.stack([x.numpy().reshape(-1)[:used] for x in samples]).astype(np.float64),
        drawn,
    )


def _run(
    scheduler: Any,
    timesteps: list[Any],
    start: Tensor,
    model: Callable[[int, Tensor], Tensor],
    draw: Callable[[], Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """Every model input and every sample of one run."""
    latents = start * float(getattr(scheduler, "init_noise_sigma", 1.0))
    inputs, samples = [], []
    with _noise_from(draw):
        for k, timestep in enumerate(timesteps):
            given = latents
            if hasattr(scheduler, "scale_model_input"):
                given = scheduler.scale_model_input(latents, timestep)
            latents = scheduler.step(model(k, given), timestep, latents, return_dict=False)[0]
            inputs.append(given)
            samples.append(latents)
    return inputs, samples


def _disagreement(scheduler: Any, table: SamplerTable) -> float:
    """Worst error of the table against the scheduler itself, on random model outputs.

    The outputs are ten times as large as a model's, so that clipping would show; the error is
    relative to the sample.
    """
    fresh, timesteps = _prepared(scheduler, table.steps)
    g = torch.Generator().manual_seed(0)
    basis = 10 * torch.randn(table.inputs.shape[1], 1, 4, 8, 8, generator=g, dtype=torch.float64)
    rest = iter(basis[1 + table.calls :])
    inputs, samples = _run(
        fresh, timesteps, basis[0], lambda k, _: basis[1 + k], lambda: next(rest)
    )
    worst = 0.0
    for rows, seen in ((table.inputs, inputs), (table.samples, samples)):
        for row, true in zip(torch.from_numpy(rows), seen, strict=True):
            error = (torch.tensordot(row, basis, 1) - true).abs().max()
            worst = max(worst, float(error / true.abs().max().clamp_min(1)))
    return worst


@contextmanager
def _noise_from(draw: Callable[[], Tensor]) -> Iterator[None]:
    """Whatever noise a scheduler of diffusers asks for comes from `draw`."""
    modules = [
        module
        for name, module in sys.modules.items()
        if name.startswith("diffusers.schedulers.") and "randn_tensor" in vars(module)
    ]

    def drawn(*_: Any, **__: Any) -> Tensor:
        return draw()

    with ExitStack() as patches:
        for module in modules:
            patches.enter_context(mock.patch.object(module, "randn_tensor", drawn))
        yield
