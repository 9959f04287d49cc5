"""Builds that are killed, lose machines, run out of disk, may not write, or meet another."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from sdpack.workers.pool import WORKER_MODULE

from tests.e2e import tiny
from tests.e2e.test_build import profile
from tests.ray_nodes import RayNodes

KILLS = int(os.environ.get("SDPACK_KILLS", "2"))  # more of them take minutes each


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trouble")
    tiny.write_catalog(folder / "catalog")
    return folder


def command(work: Path, out: Path) -> list[str]:
    device = str(profile(work, "4gb-gpu", ["fp16", "w8"]))
    where = ("--catalog", str(work / "catalog"), "--out", str(out))
    return [sys.executable, "-m", "sdpack", "-q", "build", "--profile", device, *where]


def start(
    work: Path, cache: Path, out: Path, *more: str, **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command(work, out), *more],
        env={**os.environ, "SDPACK_CACHE": str(cache), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(build: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = build.communicate()
    return build.returncode, said


def contents(bundle: Path) -> dict[str, Any]:
    """Every file that ships in a bundle, without what was timed, and when."""
    found: dict[str, Any] = {
        path.relative_to(bundle).as_posix(): path.read_bytes()
        for path in bundle.rglob("*")
        if path.is_file() and path.name != "report.html" and path.parent.name != "charts"
    }
    manifest = json.loads(found.pop("manifest.json"))
    for standing in manifest["evidence"]["standings"]:
        assert standing.pop("latency_s") > 0
    del manifest["files"]["ledger.jsonl"]
    rows = [json.loads(line) for line in found.pop("ledger.jsonl").splitlines()[1:]]
    assert sum(row["kind"] == "latency" for row in rows) > 0
    seen = [
        {**row, "made_at": None, "value": {**row["value"], "seconds": None, "spent": None}}
        for row in rows
    ]
    return {**found, "manifest.json": manifest, "ledger.jsonl": seen}


@pytest.fixture(scope="module")
def undisturbed(work: Path) -> tuple[dict[str, Any], float]:
    """A bundle, and the seconds it took from nothing."""
    pytest.importorskip("tensorrt_rtx")
    since = time.monotonic()
    code, said = finish(start(work, work / "cache", work / "a" / "bundle"))
    assert code == 0, said
    return contents(work / "a" / "bundle"), time.monotonic() - since


def worker_processes(build: subprocess.Popen[str]) -> set[int]:
    """The numbers of a build's worker processes."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # a process that has ended meanwhile
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            is_worker = WORKER_MODULE.encode() in (folder / "cmdline").read_bytes()
            if parent == build.pid and is_worker:
                found.add(int(folder.name))
    return found


def kill_a_worker(build: subprocess.Popen[str], cache: Path) -> None:
    """Kill one of two workers in the middle of its job, and wait for the one in its place."""
    seen: set[int] = set()
    killed = False
    while len(seen) < 3:
        assert build.poll() is None, finish(build)
        seen |= worker_processes(build)
        if not killed and len(seen) == 2 and (cache / "store" / "unfinished").exists():
            os.kill(min(seen), signal.SIGKILL)
            killed = True
        time.sleep(0.05)


@pytest.mark.slow
def test_a_build_killed_again_and_again_ends_the_same(
    work: Path, undisturbed: tuple[dict[str, Any], float]
) -> None:
    """One process made the undisturbed bundle; this one is begun and ended by workers."""
    wanted, seconds = undisturbed
    rng = random.Random(0)
    out = work / "b" / "bundle"
    killed = 0
    for number in range(KILLS):
        workers = ("--workers", "2") if number == 0 else ()
        build = start(work, work / "killed", out, *workers)
        if workers:
            kill_a_worker(build, work / "killed")
        try:
            build.wait(timeout=rng.uniform(0.02, 0.25) * seconds)
        except subprocess.TimeoutExpired:
            build.send_signal(signal.SIGKILL)
            killed += 1
        build.communicate()
        assert not out.exists() or contents(out) == wanted
    code, said = finish(start(work, work / "killed", out, "--workers", "2"))
    assert code == 0, said
    assert killed
    assert contents(out) == wanted
    assert [p.name for p in out.parent.iterdir() if "unfinished" in p.name] == []
    assert (out / "report.html").is_file()


@contextmanager
def machines(folder: Path, names: Sequence[str]) -> Iterator[tuple[RayNodes, dict[str, int]]]:
    """Two machines of a Ray cluster, each with a cache of its own, and their raylets by name."""
    with RayNodes() as nodes:
        yield nodes, {name: nodes.add(SDPACK_CACHE=str(folder / name)) for name in names}


def start_on_ray(work: Path, folder: Path, nodes: RayNodes, out: Path) -> subprocess.Popen[str]:
    """Start a build whose driver has a cache of its own, too."""
    options = ("--executor", "ray", "--address", nodes.address)
    shared = f"file://{folder}/shared"
    return start(work, folder / "driver", out, *options, SDPACK_STORE=shared)


def wait_until(made: Callable[[], object], build: subprocess.Popen[str]) -> None:
    """Wait until a running build has made something."""
    while not made():
        assert build.poll() is None, finish(build)
        time.sleep(0.05)


@pytest.mark.slow
def test_machines_workers_and_drivers_that_are_killed_change_nothing(
    work: Path, undisturbed: tuple[dict[str, Any], float], tmp_path: Path
) -> None:
    """Two machines of a Ray cluster end with the bundle that one process makes."""
    wanted, seconds = undisturbed
    out, rng = tmp_path / "out" / "bundle", random.Random(0)

    def working(machine: str) -> bool:
        return any((tmp_path / machine / "store").glob("*/*/artifact.json"))

    with machines(tmp_path, ["first", "second", "lost"]) as (nodes, raylets):
        build = start_on_ray(work, tmp_path, nodes, out)
        wait_until(lambda: all(map(working, ("first", "second"))), build)
        os.kill(raylets["lost"], signal.SIGKILL)
        time.sleep(rng.uniform(0, 0.1) * seconds)
        os.kill(rng.choice(ray_workers()), signal.SIGKILL)
        wait_until(lambda: list(tmp_path.glob("*/store/latents/*")), build)
        build.kill()
        build.communicate()
        assert not out.exists()
        code, said = finish(start_on_ray(work, tmp_path, nodes, out))
        assert code == 0, said
    assert contents(out) == wanted


def ray_workers() -> list[int]:
    """The numbers of the processes in which Ray runs a build's workers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # a process that has ended meanwhile
            if (folder / "cmdline").read_bytes().startswith(b"ray::RayWorker"):
                found.append(int(folder.name))
    return found


def test_a_shared_store_that_cannot_be_written_is_noticed_at_once(
    work: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    options, store = ("--executor", "ray"), f"file://{tmp_path}/file/shared"
    build = start(work, tmp_path / "cache", tmp_path / "bundle", *options, SDPACK_STORE=store)
    code, said = finish(build)
    assert code == 1
    (line,) = said.splitlines()
    assert line.startswith("Error: SDPACK_STORE: ")
    assert "a file exists where a folder is needed" in line


def test_ctrl_c_says_how_to_go_on(work: Path) -> None:
    build = start(work, work / "stopped", work / "c" / "bundle")
    time.sleep(3)
    build.send_signal(signal.SIGINT)
    code, said = finish(build)
    assert code == 130, said
    assert said.splitlines()[-1] == "Error: stopped; run the same command to resume"


def test_two_builds_into_one_folder(work: Path) -> None:
    out = work / "d" / "bundle"
    out.parent.mkdir()
    with FileLock(out.with_name(".bundle.lock")):
        code, said = finish(start(work, work / "two", out))
    assert code == 1
    assert said == f"Error: another build is writing {out}; wait for it or use --out\n"


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own in memory; skips where mounting is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_output_folder_is_noticed_at_once(work: Path) -> None:
    with mounted(work / "fixed", "size=1m,ro") as folder:
        code, said = finish(start(work, work / "fixed-cache", folder / "bundle"))
    assert code == 2
    assert said.startswith("Error: ")
    assert "is read-only; choose --out" in said
    assert len(said.splitlines()) == 1
    assert not (work / "fixed-cache" / "store" / "graph").exists()


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_what_was_there_stays(
    work: Path, undisturbed: tuple[dict[str, Any], float]
) -> None:
    wanted, _ = undisturbed
    size = sum(len(v) for v in wanted.values() if isinstance(v, bytes))
    with mounted(work / "full", f"size={size // 2 // 1024}k") as folder:
        (folder / "mine").write_text("mine")
        code, said = finish(start(work, work / "cache", folder / "bundle"))
        assert code == 1
        assert len(said.splitlines()) == 1
        assert "no space left; free some" in said
        assert (folder / "mine").read_text() == "mine"
        assert not (folder / "bundle").exists()
    with mounted(work / "full-cache", "size=300k") as folder:
        code, said = finish(start(work, folder / "cache", work / "e" / "bundle"))
        assert code == 1
        assert len(said.splitlines()) == 1, said
        assert " KiB free; free some" in said  # noticed before the disk is full
