from __future__ import annotations

from pathlib import Path

import pytest
from sdpack.cli import build
from sdpack.documents.bundle import open_bundle
from sdpack.documents.manifest import Manifest
from sdpack.pack.build import BuildResult
from sdpack.pack.request import BuildRequest
from sdpack.progress import Say
from sdpack.workers.executor import USUAL_WORKERS, ExecutorKind, WorkerOptions

from tests.sdpack.cli.calling import read_json, run


@pytest.fixture
def made(drawing: Path) -> Manifest:
    """The drawing bundle's, with the weights of all its parts in the evidence."""
    found = open_bundle(drawing)
    weights = dict.fromkeys(found.parts, 2**20)
    winner = found.evidence.winner.model_copy(update={"weights": weights})
    evidence = found.evidence.model_copy(update={"standings": (winner,)})
    return found.model_copy(update={"evidence": evidence})


@pytest.fixture
def asked(made: Manifest, monkeypatch: pytest.MonkeyPatch) -> list[BuildRequest]:
    """What is asked of builds that make nothing."""
    requests: list[BuildRequest] = []

    def built(
        request: BuildRequest, say: Say, workers: WorkerOptions, within_s: float | None
    ) -> BuildResult:
        on_ray = WorkerOptions(3, ExecutorKind.RAY, "auto")
        assert (workers, within_s) in ((USUAL_WORKERS, None), (on_ray, 5400))
        say("export")
        requests.append(request)
        return BuildResult(made, is_new=True)

    monkeypatch.setattr(build, "build_bundle", built)
    return requests


def test_options_reach_the_request(asked: list[BuildRequest], tmp_path: Path) -> None:
    out = tmp_path / "b"
    words = (
        "-p",
        "cpu-2gb",
        "--memory",
        "24MiB",
        "-o",
        str(out),
        "--images",
        "5",
        "--workers",
        "3",
        "--executor",
        "ray",
        "--address",
        "auto",
        "--max-seconds",
        "2.5",
        "--within",
        "1h30m",
    )
    assert run("build", *words).exit_code == 0
    (request,) = asked
    assert (request.profile.name, request.budget, request.out) == ("cpu-2gb", 24 * 2**20, out)
    assert (request.rules.most, request.latency_limit_s) == (5, 2.5)


def test_an_address_needs_an_executor_that_has_one(
    asked: list[BuildRequest], tmp_path: Path
) -> None:
    ran = run("build", "-p", "cpu-2gb", "-o", str(tmp_path / "b"), "--address", "ray://head:10001")
    assert ran.exit_code == 2
    assert ran.stderr == "Error: --address ray://head:10001 is only for --executor ray; give both\n"
    assert not asked


@pytest.mark.usefixtures("asked")
def test_the_output_names_the_bundle_and_its_report(tmp_path: Path) -> None:
    out = tmp_path / "b"
    result = run("build", "-p", "cpu-2gb", "-o", str(out))
    assert f"{out} holds the bundle; see {out}/report.html and {out}/samples.png" in result.output
    assert result.stderr.splitlines()[0] == "export"
    assert sum(line.startswith("Licences: ") for line in result.output.splitlines()) == 1


@pytest.mark.usefixtures("asked")
def test_as_json_it_is_the_manifest(made: Manifest) -> None:
    assert read_json("build", "-p", "cpu-2gb") == made.model_dump(mode="json", by_alias=True)
