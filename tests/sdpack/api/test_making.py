"""What the Python API builds, studies and quantizes, and what it refuses to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import sdpack

from tests.sdpack.api.refusals import check_refused
from tests.sdpack.graphs import linear, saved

UNCHECKED: Any = sdpack  # as code that no type checker has seen uses it
REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "build for no profile": (
        lambda: sdpack.build(profile="nowhere"),
        sdpack.ProfileError,
        "no profile 'nowhere'",
    ),
    "too much memory": (
        lambda: sdpack.build(profile="4gb-gpu", memory="5GiB"),
        sdpack.InputError,
        "5GiB of memory is more than the 4.00 GiB of 4gb-gpu; give less, or another profile",
    ),
    "both": (
        lambda: sdpack.build(profile="4gb-gpu", catalog="sd15", model="mine"),
        sdpack.CatalogError,
        "give --model or --catalog, not both",
    ),
    "no sizes": (
        lambda: UNCHECKED.build(profile="4gb-gpu", sizes=512),
        sdpack.InputError,
        "sizes is 512; give a list",
    ),
    "no preference": (
        lambda: sdpack.build(profile="4gb-gpu", prefer="size"),
        sdpack.InputError,
        "prefer is 'size'; choose one of quality, speed, memory",
    ),
    "too many steps": (
        lambda: sdpack.build(profile="4gb-gpu", steps=1001),
        sdpack.InputError,
        "steps is 1001; give a whole number, from 1 to 1000",
    ),
    "no budgets": (lambda: sdpack.study(budgets=[]), sdpack.InputError, "takes 1 to 64 budgets"),
    "odd budgets": (
        lambda: sdpack.study(budgets=["much"]),
        sdpack.InputError,
        "unknown budget 'much'",
    ),
    "no graph": (
        lambda: sdpack.quantize(model="nowhere.onnx", precision="w8"),
        sdpack.GraphError,
        "nowhere.onnx: there is no such file",
    ),
    "no precision": (
        lambda: sdpack.quantize(model="nowhere.onnx", precision="w5"),
        sdpack.InputError,
        "'w5' is not a valid precision",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_in_a_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_refused(*REFUSED[name])
    assert not [*tmp_path.iterdir()]


def test_it_quantizes_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDPACK_CACHE", str(tmp_path / "cache"))
    weight = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
    graph, said = saved(linear(weight), tmp_path / "graph"), list[str]()
    for precision in ("w8", "w4"):
        result = sdpack.quantize(model=graph, precision=precision, progress=said.append)
        assert result.out == graph.with_name(f"{graph.stem}.{precision}.onnx")
        assert result.out.is_file()
        assert result.bytes_after < result.bytes_before
    assert f"reading {graph}" in said
    with pytest.raises(AttributeError):
        cast(Any, result).out = graph
