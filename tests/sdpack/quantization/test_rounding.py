from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sdpack.quantization import rounding
from sdpack.quantization.rounding import DAMPING, Moment, moment_of, output_error, round_weight
from sdpack.quantization.schemes import Number, Scheme, parse_scheme

FLOAT = np.dtype(np.float32)
matrices = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.just(32)),
    elements=st.floats(-100, 100, width=32),
)


def correlated(rows: int, columns: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    few = rng.standard_normal((rows, max(2, columns // 4)))
    return few @ rng.standard_normal((few.shape[1], columns)) + 0.1 * rng.standard_normal(
        (rows, columns)
    )


def moment(inputs: np.ndarray) -> Moment:
    return moment_of(inputs.T @ inputs, len(inputs))


@given(matrices, st.sampled_from(["w8", "w4:16", "w4:32", "w8:16"]))
def test_every_number_is_off_by_half_a_step_or_clipped(w: np.ndarray, words: str) -> None:
    scheme = parse_scheme(words)
    made = round_weight(w, scheme, None, FLOAT)
    steps = np.repeat(made.scales, w.shape[1] // made.scales.shape[1], axis=1)
    clipped = np.abs(made.numbers) >= scheme.number.largest
    off = np.abs(made.values - w)
    assert (off[~clipped] <= 0.5001 * steps[~clipped] + 1e-6).all()
    assert np.array_equal(made.numbers, np.rint(made.numbers))


def test_a_row_of_zeros_stays_zero() -> None:
    made = round_weight(np.zeros((3, 32), np.float32), parse_scheme("w4:16"), None, FLOAT)
    assert np.isfinite(made.scales).all()
    assert not made.values.any()


def test_an_outlier_costs_only_its_block() -> None:
    w = np.ones((1, 64), np.float32)
    w[0, 3] = 1000
    made = round_weight(w, parse_scheme("w4:32"), None, FLOAT)
    assert made.values[0, 32:] == pytest.approx(1.0, abs=0.01)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["w4:16", "w8", "fp8"]))
def test_outputs_are_never_farther_off_than_by_rounding_to_nearest(seed: int, words: str) -> None:
    inputs = correlated(400, 64, seed)
    w = np.random.default_rng(seed).standard_normal((8, 64)).astype(np.float32)
    seen = (moment(inputs),)
    scheme = parse_scheme(words)
    nearest = round_weight(w, scheme, None, FLOAT)
    made = round_weight(w, scheme, seen, FLOAT)
    assert output_error(w - made.values, seen) <= 1.001 * output_error(w - nearest.values, seen)


def test_it_is_near_the_best_there_is() -> None:
    """All 16^4 ways to store a row of four, one after the other."""
    ratios = []
    for seed in range(20):
        inputs = correlated(200, 4, seed)
        w = np.random.default_rng(seed).standard_normal((1, 4)).astype(np.float32)
        seen = moment(inputs)
        made = round_weight(w, Scheme(Number.INT4, 4), (seen,), FLOAT)
        every = np.array(list(product(range(-8, 8), repeat=4)), np.float32) * made.scales
        second = seen.matrix + DAMPING * np.diag(seen.matrix).mean() * np.eye(4)
        errors = np.einsum("ij,jk,ik->i", w - every, second, w - every)
        mine = w - made.values
        ratios.append(float((mine @ second @ mine.T).item() / errors.min()))
    assert np.median(ratios) < 1.3
    assert min(ratios) >= 0.999


def test_the_error_is_that_of_the_outputs() -> None:
    inputs = correlated(300, 48, 1)
    seen = moment(inputs)
    off = np.random.default_rng(0).standard_normal((5, 48)).astype(np.float32)
    wanted = float(((inputs @ off.T) ** 2).sum(axis=1).mean())
    assert output_error(off, (seen,)) == pytest.approx(wanted, rel=0.01)
    halves = (moment(inputs[:, :24]), moment(inputs[:, 24:]))
    apart = sum(
        float(((inputs[:, c] @ off[:, c].T) ** 2).sum(axis=1).mean())
        for c in (slice(0, 24), slice(24, 48))
    )
    assert output_error(off, halves) == pytest.approx(apart, rel=0.01)


def test_inputs_that_never_come_do_no_harm() -> None:
    inputs = correlated(100, 32, 0)
    inputs[:, 5] = 0
    w = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
    for seen in (moment(inputs), moment(np.zeros((10, 32)))):
        assert np.isfinite(round_weight(w, parse_scheme("w4:16"), (seen,), FLOAT).values).all()


def test_scales_are_what_fp16_can_hold() -> None:
    w = np.full((2, 32), 1e-9, np.float32)
    made = round_weight(w, parse_scheme("w4:16"), None, np.dtype(np.float16))
    assert made.scales.dtype == np.float16
    assert (made.scales > 0).all()


@pytest.mark.parametrize("columns", [1, 7, 600, 1300])
def test_how_errors_are_made_up_for(columns: int) -> None:
    rng = np.random.default_rng(columns)
    seen = rng.standard_normal((2 * columns, columns)) * rng.uniform(0.1, 2, columns)
    moment = moment_of(seen.T @ seen, 2 * columns)
    root = moment.inverse_root.astype(np.float64)
    assert np.array_equal(root, np.triu(root))
    assert np.allclose(root.T @ root @ moment.damped, np.eye(columns), atol=1e-3)


def test_moments_that_single_precision_cannot_invert_are_inverted_in_double(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = np.random.default_rng(0).standard_normal((64, 24)).astype(np.float32)
    usual = moment_of(inputs.T @ inputs, len(inputs)).inverse_root
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda given: (given, torch.tensor(1)))
    assert np.allclose(moment_of(inputs.T @ inputs, len(inputs)).inverse_root, usual, atol=1e-5)


@pytest.mark.parametrize("words", ["w8", "w4:16"])
def test_a_large_table_is_rounded_as_its_rows_are(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = np.random.default_rng(3).normal(size=(70, 32)).astype(np.float32)
    whole = round_weight(table, parse_scheme(words), None, np.dtype(np.float16))
    monkeypatch.setattr(rounding, "COPIED_ROWS", 16)
    again = round_weight(table, parse_scheme(words), None, np.dtype(np.float16))
    assert np.array_equal(again.numbers, whole.numbers)
    assert np.array_equal(again.scales, whole.scales)
    some = whole.rows(slice(10, 20))
    assert np.array_equal(some.values, whole.values[10:20])
