from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.errors import SdpackError, StoreError
from sdpack.store.artifacts import Store, cache_folder, digest


def fill(folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"abc")
    (folder / "b").mkdir()
    (folder / "b" / "c.txt").write_text("deep")


def never(folder: Path) -> None:
    raise AssertionError("made twice")


def write_abc(folder: Path) -> None:
    (folder / "a").write_bytes(b"abc")


def test_what_was_changed_after_it_was_made_is_found_and_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = store.make("graph", {"of": 1}, write_abc)
    store.check(made)
    made.path("a").write_bytes(b"abd")
    with pytest.raises(StoreError, match="was changed after it was made"):
        store.check(made)
    assert store.find("graph", {"of": 1}) is None


def test_what_is_made_is_found_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = store.make("graph", {"of": 1}, fill)
    again = store.make("graph", {"of": 1}, never)
    assert again.path("b/c.txt").read_text() == "deep"
    assert again.content == made.content
    assert again.bytes == 7


def test_other_inputs_are_another_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.make("graph", {"of": 1}, fill)
    assert store.find("graph", {"of": 2}) is None
    assert store.find("engine", {"of": 1}) is None


@pytest.mark.parametrize("damage", ["cut", "missing", "record"])
def test_a_damaged_artifact_is_made_anew(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    made = store.make("graph", {"of": 1}, fill)
    if damage == "cut":
        made.path("a.bin").write_bytes(b"ab")
    elif damage == "missing":
        made.path("b/c.txt").unlink()
    else:
        made.path("artifact.json").write_text('{"kind": "graph", "fi')
    assert store.find("graph", {"of": 1}) is None
    assert store.make("graph", {"of": 1}, fill).path("a.bin").read_bytes() == b"abc"


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(folder: Path) -> None:
        fill(folder)
        raise SdpackError("no")

    with pytest.raises(SdpackError, match="no"):
        store.make("graph", {"of": 1}, fail)
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"] == []


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "no space left; free some"), (errno.EROFS, "not writable")],
)
def test_a_disk_that_takes_nothing_is_explained(tmp_path: Path, number: int, said: str) -> None:
    def full(folder: Path) -> None:
        raise OSError(number, os.strerror(number), str(folder))

    with pytest.raises(StoreError, match=said):
        Store(tmp_path).make("graph", {"of": 1}, full)


def test_killed_while_building_the_next_run_completes(tmp_path: Path) -> None:
    script = """
        import sys, time
        from pathlib import Path
        from sdpack.store.artifacts import Store

        def slow(folder):
            (folder / "a.bin").write_bytes(b"ab")
            print("half", flush=True)
            time.sleep(60)

        Store(Path(sys.argv[1])).make("graph", {"of": 1}, slow)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    deploy = str(Path(__file__).parents[2] / "deploy")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": deploy}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
    store = Store(tmp_path)
    assert store.find("graph", {"of": 1}) is None
    assert store.make("graph", {"of": 1}, fill).bytes == 7
    assert store.collect(3600) == 2  # what the killed process left


def test_collecting_spares_what_is_in_use(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old = store.make("graph", {"of": 1}, fill)
    store.make("graph", {"of": 2}, fill)
    past = time.time() - 7200
    os.utime(old.path("artifact.json"), (past, past))
    assert store.collect(3600) == old.bytes
    assert [a.inputs for a in store.artifacts()] == [{"of": 2}]


def test_the_cache_goes_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDPACK_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), json_values, max_size=4))
def test_the_order_of_keys_does_not_matter(inputs: dict[str, Any]) -> None:
    assert digest(inputs) == digest(dict(reversed(list(inputs.items()))))


def test_room_is_checked_before_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    store.check_space(2**30, "exporting denoiser d")
    with pytest.raises(StoreError, match=r"exporting denoiser d needs 2.00 GiB, and .* 1.00 GiB"):
        store.check_space(2**31, "exporting denoiser d")


def test_missing_artifacts_are_made_in_one_pass(tmp_path: Path) -> None:
    store, passes = Store(tmp_path / "store"), []

    def build(folders: Mapping[int, Path]) -> None:
        passes.append(sorted(folders))
        for place, folder in folders.items():
            (folder / "x").write_text(str(place))

    second = store.make("kind", {"n": 1}, lambda folder: build({1: folder}))
    made = store.make_together("kind", [{"n": n} for n in range(3)], build)
    assert passes == [[1], [0, 2]]
    assert made[1] == second
    assert [artifact.path("x").read_text() for artifact in made] == ["0", "1", "2"]
    assert store.make_together("kind", [{"n": n} for n in range(3)], build) == made
    assert passes == [[1], [0, 2]]


def test_a_pass_that_fails_leaves_none_of_its_artifacts(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")

    def build(folders: Mapping[int, Path]) -> None:
        (folders[0] / "x").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.make_together("kind", [{"n": 0}, {"n": 1}], build)
    assert list(store.artifacts()) == []
    assert list((store.folder / "unfinished").iterdir()) == []
