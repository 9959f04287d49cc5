from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sdpack.errors import InputError
from sdpack.quantization.batches import batches_for

from tests.sdpack.graphs import linear

MODEL = linear(np.zeros((4, 3), np.float32))


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_files_of_folders_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        saved(tmp_path / f"{number}.npz", x=np.full((1, 4), number, np.float64))
    alone = saved(tmp_path.with_name("alone.npz"), x=np.full((1, 4), 9, np.float32))
    found = batches_for(MODEL, [tmp_path, alone])
    assert [batch["x"][0, 0] for batch in found] == [0, 1, 2, 9]
    assert [batch["x"][0, 0] for batch in found[1:3]] == [1, 2]
    assert found[0]["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": np.zeros((1, 4))}, "arrays named y, but the graph takes x"),
        ({"x": np.zeros((1, 4)), "y": np.zeros(1)}, "arrays named x, y"),
        ({}, "arrays named nothing"),
        ({"x": np.array(["a"])}, "x is <U1, but the graph takes float32"),
        ({"x": np.array([{}])}, "is not an .npz file of arrays"),
    ],
)
def test_what_the_graph_does_not_take_is_told(
    tmp_path: Path, arrays: dict[str, np.ndarray], said: str
) -> None:
    path = saved(tmp_path / "batch.npz", **arrays)
    with pytest.raises(InputError, match=said) as caught:
        batches_for(MODEL, [path])
    assert str(path) in str(caught.value)


def test_files_that_hold_no_arrays_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty has no \.npz files"):
        batches_for(MODEL, [tmp_path / "empty"])
    for content in (b"not an archive", b"PK\x03\x04cut off"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.npz is not an \.npz file"):
            batches_for(MODEL, [tmp_path / "bad.npz"])
    one = tmp_path / "one.npy"
    np.save(one, np.zeros(3))
    with pytest.raises(InputError, match=r"one\.npy is not an \.npz file"):
        batches_for(MODEL, [one])
    with pytest.raises(InputError, match=r"gone\.npz is not an \.npz file"):
        batches_for(MODEL, [tmp_path / "gone.npz"])
