from __future__ import annotations

from pathlib import Path

import numpy as np
from sdpack.quantization.archive import archive


def write(path: Path) -> bytes:
    with archive(path) as put:
        put("one/two", np.arange(12, dtype=np.float32).reshape(3, 4).T)
        put("flags", np.zeros(0, np.uint8))
    return path.read_bytes()


def test_numpy_reads_what_was_put_and_the_bytes_are_always_the_same(tmp_path: Path) -> None:
    assert write(tmp_path / "a.npz") == write(tmp_path / "b.npz")
    with np.load(tmp_path / "a.npz") as found:
        assert found.files == ["one/two", "flags"]
        assert np.array_equal(found["one/two"], np.arange(12).reshape(3, 4).T)
        assert found["flags"].dtype == np.uint8
