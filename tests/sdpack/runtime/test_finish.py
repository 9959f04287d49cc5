"""Finishing a bundle on its device, with real builds of TensorRT-RTX standing in for TensorRT."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sdpack.documents.bundle import open_bundle, write_bundle
from sdpack.documents.manifest import Engine, Manifest, Tiles
from sdpack.documents.profile import find_profile
from sdpack.domain.input_range import InputRange
from sdpack.domain.placement import Role
from sdpack.domain.precision import Runtime
from sdpack.engines import tensorrt_builder
from sdpack.engines.tensorrt_builder import TENSORRT_PACKAGES
from sdpack.errors import BundleError, EngineError, MissingPackageError, StoreError
from sdpack.runtime.finish import finish, unfinished

from tests.sdpack.documents.test_bundle import manifest
from tests.sdpack.graphs import linear, saved

WEIGHT = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
SIZES = {"smallest": (1, 64), "best": (2, 64), "largest": (2, 64)}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    values = manifest()
    part = values.parts[Role.DENOISER].model_copy(update={"inputs": {"x": InputRange(**SIZES)}})
    jetson = find_profile("jetson-orin-nano-8gb")
    others = {role: values.parts[role] for role in values.parts if role is not Role.DENOISER}
    built = {r: p.model_copy(update={"plan": f"engines/{r.value}.plan"}) for r, p in others.items()}
    update: dict[str, Any] = {"parts": {**built, Role.DENOISER: part}, "profile": jetson}

    def fill(folder: Path) -> None:
        saved(linear(WEIGHT), folder / "onnx" / "unet")
        (folder / "sampler.json").write_text("{}")
        (folder / "engines").mkdir()
        for there in built.values():
            (folder / str(there.plan)).write_text("built")

    write_bundle(tmp_path / "b", values.model_copy(update=update), fill)
    return tmp_path / "b"


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setitem(TENSORRT_PACKAGES, Runtime.TENSORRT, "tensorrt_rtx")
    build = partial(tensorrt_builder.build, compute_capability="SM86")
    monkeypatch.setattr(tensorrt_builder, "build", build)


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.usefixtures("device")
def test_the_engines_join_the_bundle(bundle: Path) -> None:
    before = files(bundle)
    assert unfinished(open_bundle(bundle)) == [Role.DENOISER]
    found = finish(bundle)
    assert found == open_bundle(bundle)
    assert found.parts[Role.DENOISER].plan == "engines/denoiser.plan"
    assert found.finished is not None
    assert found.finished.plans[Role.DENOISER].weight_bytes >= WEIGHT.nbytes
    after = files(bundle)
    assert set(after) == {*before, "engines/denoiser.plan"}
    assert all(after[name] == before[name] for name in before if name != "manifest.json")


PIECES = ("stem", "tail")


def tiled(bundle: Path, **built: str) -> Path:
    """The same bundle with a decoder in tiles, and with plans of some of its pieces, as text."""
    manifest = open_bundle(bundle)
    inputs = {"x": InputRange(**SIZES)}
    stem, tail = (
        Engine(
            graph=f"onnx/vae_decoder/{piece}.onnx",
            plan=f"engines/decoder-{piece}.plan" if piece in built else None,
            inputs=inputs,
        )
        for piece in PIECES
    )
    tiles = Tiles(stem=stem, tail=tail, channels=4, factor=2, halo=6, norms=0, groups=0)
    decoder = manifest.parts[Role.DECODER].model_copy(update={"plan": None, "tiles": tiles})
    update = {
        "parts": {**manifest.parts, Role.DECODER: decoder},
        "placement": replace(manifest.placement, tile=32),
    }

    def fill(folder: Path) -> None:
        shutil.copytree(bundle, folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        for piece in PIECES:
            made = saved(linear(WEIGHT), folder / "onnx" / "vae_decoder")
            made.rename(made.with_name(f"{piece}.onnx"))
        for piece, content in built.items():
            (folder / "engines" / f"decoder-{piece}.plan").write_text(content)

    write_bundle(bundle.with_name("tiled"), manifest.model_copy(update=update), fill)
    return bundle.with_name("tiled")


@pytest.mark.usefixtures("device")
def test_a_decoder_in_tiles_gets_an_engine_for_each_graph(bundle: Path) -> None:
    whole = tiled(bundle)
    assert Role.DECODER in unfinished(open_bundle(whole))
    found = finish(whole)
    plans = {engine.plan for engine in found.parts[Role.DECODER].engines}
    assert plans == {"engines/decoder-stem.plan", "engines/decoder-tail.plan"}
    assert unfinished(found) == []
    assert found.finished is not None
    assert found.finished.plans[Role.DECODER].weight_bytes >= 2 * WEIGHT.nbytes


@pytest.mark.usefixtures("device")
def test_a_copy_that_fails_leaves_the_bundle_as_it_was(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new bundle shares files with the old one; a plan that is built again is one of them."""
    whole = tiled(bundle, stem="an older plan")
    before, copy = files(whole), shutil.copyfile
    copied = []

    def fail_at_last(source: Path, target: Path) -> None:
        copied.append(target.name)
        if target.name == "decoder-tail.plan":
            raise OSError(errno.ENOSPC, "no space left")
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", fail_at_last)
    with pytest.raises(StoreError, match="no space left"):
        finish(whole)
    assert "decoder-stem.plan" in copied
    assert files(whole) == before


@pytest.mark.usefixtures("device")
def test_a_finished_bundle_is_left_alone(bundle: Path) -> None:
    finish(bundle)
    before = files(bundle)
    finish(bundle)
    assert files(bundle) == before


@pytest.mark.usefixtures("device")
def test_a_build_that_fails_leaves_the_bundle_as_it_was(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise EngineError("does not build")

    monkeypatch.setattr(tensorrt_builder, "build", fail)
    before = files(bundle)
    with pytest.raises(EngineError):
        finish(bundle)
    assert files(bundle) == before


def test_without_tensorrt_it_says_what_to_install(bundle: Path) -> None:
    with pytest.raises(MissingPackageError, match="tensorrt"):
        finish(bundle)


def test_a_damaged_bundle_is_not_finished(bundle: Path) -> None:
    (bundle / "sampler.json").write_text("{ }")
    with pytest.raises(BundleError):
        finish(bundle)


def test_nothing_is_unfinished_where_no_plans_are_needed() -> None:
    plain: Manifest = manifest()
    cpu = plain.model_copy(update={"profile": find_profile("cpu-2gb")})
    assert unfinished(cpu) == []
