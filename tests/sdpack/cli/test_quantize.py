from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.sdpack.cli.calling import read_json, run
from tests.sdpack.graphs import linear, saved


def test_quantize_says_what_it_made(tmp_path: Path) -> None:
    path = saved(linear(np.random.default_rng(0).standard_normal((64, 48), np.float32)), tmp_path)
    batch = tmp_path / "batch.npz"
    np.savez(batch, x=np.random.default_rng(1).standard_normal((8, 64), np.float32))
    out = tmp_path / "small.onnx"
    words = ("quantize", str(path), "--precision", "w4", "--out", str(out))
    blind = run(*words)
    assert blind.exit_code == 0
    assert "layers by precision: 1 w4:32" in blind.output
    assert "no calibration inputs were given" in blind.output
    assert blind.output.splitlines()[-1].startswith("done in ")
    found = read_json(*words, "--calibration", str(batch))
    assert found["layers"] == {"w4:32": 1}
    assert found["output_error_db"]["y"] < -15
    assert found["bytes_after"] == sum(p.stat().st_size for p in tmp_path.glob("small.onnx*"))
    kept = run(*words, "--keep", "linear")
    assert "layers by precision: 1 unquantized" in kept.output
    assert "not quantized (3,072 numbers): w (linear, as --keep asks)" in kept.output
    left = read_json(*words, "--keep", "linear")["unquantized"]
    assert left == [{"name": "w", "numbers": 3072, "why": "linear, as --keep asks"}]
    for wrong in ("w5", "mixed@1"):
        result = run(*words[:3], wrong, "--calibration", str(batch))
        assert result.exit_code == 2
        assert result.output.splitlines()[-1].startswith("Error: ")
