"""What the Python API builds, studies and quantizes, and what it refuses to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import sdpack
from sdpack.api import making
from sdpack.evaluate.rules import Preference
from sdpack.pack.options import Options

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
    "no base": (
        lambda: sdpack.build(profile="4gb-gpu", model="a.safetensors", base="sd14"),
        sdpack.InputError,
        "base is 'sd14'; choose one of sd15, sd21, sd21-base, sdxl",
    ),
    "a base of no file": (
        lambda: sdpack.build(profile="4gb-gpu", base="sd15", vae="vae.safetensors"),
        sdpack.CatalogError,
        "--base, --vae: only with a --model in a single file",
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
    "weights without names": (
        lambda: UNCHECKED.build(profile="4gb-gpu", weigh=2),
        sdpack.InputError,
        "weigh is 2; give weights by category, as a dict",
    ),
    "a weight of no category": (
        lambda: sdpack.build(profile="4gb-gpu", weigh={"poetry": 2.0}),
        sdpack.InputError,
        "--weigh: poetry is no category; the categories are ",
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


@pytest.mark.parametrize("name", ["build", "study"])
def test_an_unknown_option_is_named(name: str) -> None:
    required = {"build": {"profile": "4gb-gpu"}, "study": {"budgets": "8MiB"}}[name]
    message = rf"^{name}\(\) got an unexpected keyword argument 'size'$"
    with pytest.raises(TypeError, match=message):
        getattr(UNCHECKED, name)(**required, size=[(512, 512)])


@pytest.mark.parametrize(
    ("name", "required", "images"),
    [("build", {"profile": "4gb-gpu"}, None), ("study", {"budgets": "8MiB"}, 64)],
)
def test_options_have_the_defaults_of_the_command(
    name: str, required: dict[str, str], images: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Options] = []

    def stop(options: Options, *_: object) -> None:
        seen.append(options)
        raise sdpack.InputError("stopped")

    monkeypatch.setattr(making, "bundle_request", stop)
    monkeypatch.setattr(making, "study_request", stop)
    given: dict[str, Any] = {"sizes": [(96, 64)], "batch": 2, "steps": 3, "images": 4}
    for options in ({}, {**given, "prefer": "speed"}):
        with pytest.raises(sdpack.InputError, match="stopped"):
            getattr(UNCHECKED, name)(**required, **options)
    assert seen == [
        Options("4gb-gpu", images),
        Options("4gb-gpu", 4, None, None, ((64, 96),), 2, 3, Preference.SPEED),
    ]


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
