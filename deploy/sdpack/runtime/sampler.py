"""Schedulers as tables of coefficients, and the sampling loop.

Every sampler that sdpack runs is linear in the starting noise, the model's outputs and later noise
draws. Each model input and each sample is therefore a fixed linear combination of the vectors

    start, output 1 ... output K, draw 1 ... draw N

and the table has one row of coefficients for each. `sdpack.export.sampler` computes it from
diffusers' own scheduler.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdpack.errors import BundleError

SCHEMA = 1
Floats = NDArray[np.float32]
Table = NDArray[np.float64]


@dataclass(frozen=True)
class SamplerTable:
    """One scheduler at one number of steps.

    K is the number of model calls, which differs from `steps` for second-order schedulers;
    W = 1 + K + `draws`.

    Attributes:
        scheduler: its diffusers class.
        steps: the requested number of steps.
        timesteps: timestep of each model call, float64 (K,).
        inputs: coefficients of each model input, float64 (K, W).
        samples: coefficients of the sample after each call, float64 (K, W); the last one is the
            denoised latents.
        draws: number of later noise draws.
    """

    scheduler: str
    steps: int
    timesteps: Table
    inputs: Table
    samples: Table
    draws: int

    @property
    def calls(self) -> int:
        return len(self.timesteps)

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON values, without loss of precision."""
        return {
            "schema": SCHEMA,
            "scheduler": self.scheduler,
            "steps": self.steps,
            "draws": self.draws,
            "timesteps": self.timesteps.tolist(),
            "inputs": self.inputs.tolist(),
            "samples": self.samples.tolist(),
        }


def read_sampler(path: Path) -> SamplerTable:
    """Read the table in a sampler.json.

    Raises:
        BundleError: the file is missing, damaged or of another schema.
    """
    try:
        return _table(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise BundleError(
            f"{path} is not a valid sampler table ({cause}); build the bundle again"
        ) from cause


def _table(values: dict[str, Any]) -> SamplerTable:
    if values["schema"] != SCHEMA:
        raise ValueError(
            f"it has schema {values['schema']}, but this version reads schema {SCHEMA}"
        )
    inputs, samples = (np.array(values[key], np.float64) for key in ("inputs", "samples"))
    timesteps, draws = np.array(values["timesteps"], np.float64), int(values["draws"])
    shape = (len(timesteps), 1 + len(timesteps) + draws)
    if inputs.shape != shape or samples.shape != shape:
        raise ValueError(
            f"coefficients have shapes {inputs.shape} and {samples.shape}, not {shape}"
        )
    if not all(np.isfinite(array).all() for array in (timesteps, inputs, samples)):
        raise ValueError("some of its numbers are not finite")
    return SamplerTable(
        str(values["scheduler"]), int(values["steps"]), timesteps, inputs, samples, draws
    )


Model = Callable[[Floats, float], Floats]
"""Function of model input and timestep; input and output are float32 of the latents' shape."""


Stepped = Callable[[int, int], None]
"""Callback for progress: takes the number of finished model calls and their total."""


def sample(
    table: SamplerTable,
    start: Floats,
    model: Model,
    draw: Callable[[], Floats],
    stepped: Stepped | None = None,
) -> Floats:
    """Return the denoised latents, float32 of `start`'s shape.

    Args:
        table: the sampler table.
        start: standard normal noise.
        model: the denoiser.
        draw: returns more noise of the same shape; called `table.draws` times.
        stepped: called after each model call; it may raise an exception to stop.
    """
    latents = start
    for made, sampled in enumerate(trajectory(table, start, model, draw), start=1):
        latents = sampled
        if stepped is not None:
            stepped(made, table.calls)
    return latents


def trajectory(
    table: SamplerTable, start: Floats, model: Model, draw: Callable[[], Floats]
) -> Iterator[Floats]:
    """Yield the sample after each model call; the last one is the denoised latents."""
    basis = np.zeros((table.inputs.shape[1], *start.shape), np.float32)
    basis[0] = start
    for k in range(table.draws):
        basis[1 + table.calls + k] = draw()
    for k, timestep in enumerate(table.timesteps):
        basis[1 + k] = model(_combined(table.inputs[k], basis), float(timestep))
        yield _combined(table.samples[k], basis)


def _combined(row: Table, basis: Floats) -> Floats:
    """Return the linear combination of the basis, float32, accumulated in float64.

    A loop, because a matrix product would need the whole basis in float64, and a BLAS.
    """
    total = np.zeros(basis.shape[1:])
    for column in np.flatnonzero(row):
        total += row[column] * basis[column]
    return total.astype(np.float32)
