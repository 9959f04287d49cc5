"""Which later requests find a finished build, and which changes hide it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from sdpack.documents.bundle import open_bundle
from sdpack.documents.catalog_files import default_catalog
from sdpack.documents.layout import MANIFEST, REPORT
from sdpack.documents.profile import find_profile
from sdpack.pack.build import build
from sdpack.pack.finished_builds import FinishedBuilds
from sdpack.pack.request import BuildRequest

from tests.sdpack.bundles import write_drawing_bundle


@pytest.fixture
def finished_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildRequest:
    """A request whose bundle was written and recorded."""
    monkeypatch.setenv("SDPACK_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "bundle"
    manifest = write_drawing_bundle(out)
    (out / REPORT).write_text("a report")
    made = BuildRequest(find_profile("cpu-2gb"), default_catalog(), out)
    FinishedBuilds(made).record(manifest)
    return made


def test_the_same_request_returns_the_bundle_without_building(
    finished_request: BuildRequest,
) -> None:
    result = build(finished_request)
    assert not result.is_new
    assert result.manifest == FinishedBuilds(finished_request).find()


def test_another_request_does_not_find_it(finished_request: BuildRequest) -> None:
    others = [
        replace(finished_request, budget_bytes=2**29),
        replace(finished_request, steps=3),
        replace(finished_request, weights={"count": 2.0}),
        replace(finished_request, profile=find_profile("cpu-4gb")),
        replace(finished_request, rules=replace(finished_request.rules, most=7)),
    ]
    assert [FinishedBuilds(other).find() for other in others] == [None] * len(others)


@pytest.mark.parametrize("name", [MANIFEST, REPORT, "onnx/denoiser/model.onnx"])
def test_a_bundle_with_a_missing_file_is_built_again(
    finished_request: BuildRequest, name: str
) -> None:
    (finished_request.out / name).unlink()
    assert FinishedBuilds(finished_request).find() is None


def test_a_bundle_with_a_changed_file_is_built_again(finished_request: BuildRequest) -> None:
    graph = finished_request.out / "onnx/denoiser/model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    assert FinishedBuilds(finished_request).find() is None


def test_a_changed_source_file_hides_it(
    finished_request: BuildRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"first")
    files = {"part": weights}
    monkeypatch.setattr(
        type(finished_request.located),
        "local_files",
        lambda self: iter(files.items()),
        raising=True,
    )
    finished = FinishedBuilds(finished_request)
    assert finished.find() is None  # it was recorded for the catalog's own files
    finished.record(open_bundle(finished_request.out))
    assert finished.find() is not None
    os.utime(weights, ns=(1, 1))
    assert finished.find() is None


def test_nothing_is_written_before_there_is_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDPACK_CACHE", str(tmp_path / "cache"))
    made = BuildRequest(find_profile("cpu-2gb"), default_catalog(), tmp_path / "bundle")
    assert FinishedBuilds(made).find() is None
    assert list(tmp_path.iterdir()) == []
