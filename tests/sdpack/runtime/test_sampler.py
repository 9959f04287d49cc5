from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.errors import BundleError
from sdpack.runtime.sampler import SamplerTable, read_sampler, sample, trajectory

SHAPE = (2, 4, 3, 3)


def some_table(calls: int, draws: int, seed: int) -> SamplerTable:
    """Random coefficients; no call's input has a part of its own or a later output."""
    rng = np.random.default_rng(seed)
    inputs, samples = rng.standard_normal((2, calls, 1 + calls + draws))
    for call in range(calls):
        inputs[call, 1 + call : 1 + calls] = 0
        samples[call, 2 + call : 1 + calls] = 0
    return SamplerTable("SomeScheduler", calls, rng.random(calls) * 1000, inputs, samples, draws)


def model(x: np.ndarray, timestep: float) -> np.ndarray:
    return np.tanh(x + timestep / 1000)


TABLES = st.builds(some_table, st.integers(1, 4), st.integers(0, 3), st.integers(0, 999))


@given(TABLES)
def test_sampling_is_each_row_s_combination_of_start_outputs_and_draws(table: SamplerTable) -> None:
    noise = np.random.default_rng(1).standard_normal((1 + table.draws, *SHAPE), np.float32)
    given = iter(noise[1:])
    seen = sample(table, noise[0], model, lambda: next(given))
    outputs: list[np.ndarray] = []
    for row, timestep in zip(table.inputs, table.timesteps, strict=True):
        known = [noise[0], *outputs, *[0 * noise[0]] * (table.calls - len(outputs)), *noise[1:]]
        x = np.tensordot(row, np.stack(known), 1)
        outputs.append(model(x.astype(np.float32), timestep))
    wanted = np.tensordot(table.samples[-1], np.stack([noise[0], *outputs, *noise[1:]]), 1)
    assert np.allclose(seen, wanted, atol=1e-4)


def test_the_callback_sees_every_step_and_its_exception_ends_sampling() -> None:
    table, told = some_table(4, 0, 0), list[tuple[int, int]]()

    def stepped(done: int, of: int) -> None:
        told.append((done, of))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(table, np.zeros(SHAPE, np.float32), model, pytest.fail, stepped)
    assert told == [(1, 4), (2, 4), (3, 4)]


def test_the_last_of_a_trajectory_are_the_latents() -> None:
    table, start = some_table(3, 0, 0), np.ones(SHAPE, np.float32)
    steps = list(trajectory(table, start, model, pytest.fail))
    assert len(steps) == table.calls
    assert np.array_equal(steps[-1], sample(table, start, model, pytest.fail))


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "sampler.json"
    path.write_text(json.dumps({**some_table(3, 2, 0).to_json(), **changes}))
    return path


def test_a_table_keeps_all_digits_in_its_file(tmp_path: Path) -> None:
    wanted, seen = some_table(3, 2, 0), read_sampler(written(tmp_path))
    assert (seen.scheduler, seen.steps, seen.draws) == (wanted.scheduler, wanted.steps, 2)
    for key in ("timesteps", "inputs", "samples"):
        assert np.array_equal(getattr(seen, key), getattr(wanted, key))


@pytest.mark.parametrize("key", ["timesteps", "inputs", "samples"])
def test_a_table_with_numbers_that_are_not_finite_is_not_read(tmp_path: Path, key: str) -> None:
    numbers = np.array(some_table(3, 2, 0).to_json()[key]) * np.nan
    with pytest.raises(BundleError, match="not finite"):
        read_sampler(written(tmp_path, **{key: numbers.tolist()}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 2}, "it has schema 2, this version reads 1"),
        ({"draws": 1}, r"coefficients have shapes \(3, 6\) and \(3, 6\), not \(3, 5\)"),
        ({"inputs": "none"}, "build the bundle again"),
        ({"timesteps": None}, "build the bundle again"),
    ],
)
def test_a_damaged_table_is_refused_and_its_file_named(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(BundleError, match=said) as caught:
        read_sampler(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
