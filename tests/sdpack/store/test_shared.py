"""Two machines with a store in common: a folder, or a real S3-compatible server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from sdpack.errors import StoreError
from sdpack.store.artifacts import Store
from sdpack.store.shared import SharedStore

BUCKET = "artifacts"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty shared store."""
    if request.param == "folder":
        return f"file://{tmp_path}/shared"
    address = request.getfixturevalue("server")
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"{BUCKET}-{abs(hash(tmp_path))}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}/sdpack"


@pytest.fixture
def machine(url: str, tmp_path: Path) -> Callable[[str], Store]:
    """The store of a machine, by its name."""
    return lambda name: Store(tmp_path / name, SharedStore(url))


def fill(text: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        (folder / "graph.txt").write_text(text)
        (folder / "parts").mkdir()
        (folder / "parts" / "more.bin").write_bytes(text.encode() * 1000)

    return build


def refuse(_: Path) -> None:
    raise AssertionError("it is in the shared store")


def test_what_one_machine_made_another_finds(machine: Callable[[str], Store]) -> None:
    made = machine("a").make("graph", {"of": 1}, fill("x"))
    assert machine("b").find("graph", {"of": 2}) is None
    found = machine("b").make("graph", {"of": 1}, refuse)
    assert found.folder != made.folder
    assert (found.content, found.inputs) == (made.content, made.inputs)
    assert found.path("parts/more.bin").read_bytes() == b"x" * 1000
    machine("b").check(found)


def test_the_first_of_two_machines_decides(machine: Callable[[str], Store]) -> None:
    def build(folder: Path) -> None:
        machine("b").make("graph", {"of": 1}, fill("first"))
        fill("second")(folder)

    assert machine("a").make("graph", {"of": 1}, build).path("graph.txt").read_text() == "first"


def test_what_was_made_before_there_was_a_shared_store_is_published_when_it_is_used(
    machine: Callable[[str], Store], tmp_path: Path
) -> None:
    for name in "ab":
        Store(tmp_path / name).make("graph", {"of": 1}, fill(name))
    assert machine("c").find("graph", {"of": 1}) is None
    assert machine("a").make("graph", {"of": 1}, refuse).path("graph.txt").read_text() == "a"
    assert machine("c").make("graph", {"of": 1}, refuse).path("graph.txt").read_text() == "a"
    assert machine("b").make("graph", {"of": 1}, refuse).path("graph.txt").read_text() == "a"


def test_an_artifact_of_one_shared_store_is_published_in_another_too(tmp_path: Path) -> None:
    def store(machine: str, shared: str) -> Store:
        return Store(tmp_path / machine, SharedStore(f"file://{tmp_path}/{shared}"))

    store("a", "first").make("graph", {"of": 1}, fill("x"))
    assert store("b", "second").find("graph", {"of": 1}) is None
    store("a", "second").make("graph", {"of": 1}, refuse)
    assert store("b", "second").find("graph", {"of": 1}) is not None


def test_a_damaged_artifact_is_made_again(
    machine: Callable[[str], Store], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = machine("a").make("graph", {"of": 1}, fill("x"))
    shared = SharedStore(url)
    files, root = shared._files, shared._root
    sha256 = made.files["graph.txt"]
    files.pipe_file(f"{root}/files/{sha256[:2]}/{sha256}", b"half")
    assert machine("b").find("graph", {"of": 1}) is None
    again = machine("b").make("graph", {"of": 1}, fill("x"))
    assert again.content == made.content
    files.rm_file(f"{root}/files/{sha256[:2]}/{sha256}")
    assert machine("c").find("graph", {"of": 1}) is None, "a file is missing"
    machine("c").make("graph", {"of": 1}, fill("x"))
    for record in (b"{", b"[]", b'{"files": {"x": {}}}', b'{"files": {"x": 3}}'):
        files.pipe_file(f"{root}/records/graph/{made.folder.name}.json", record)
        assert machine("d").find("graph", {"of": 1}) is None


def test_a_machine_that_is_killed_while_it_publishes_leaves_nothing(
    url: str, machine: Callable[[str], Store], tmp_path: Path
) -> None:
    script = f"""
import os, sys
from pathlib import Path
from sdpack.store.artifacts import Store
from sdpack.store.shared import SharedStore

class Killed(SharedStore):
    def _create(self, path, content):
        os.kill(os.getpid(), 9)

def build(folder):
    (folder / "graph.txt").write_text("x")

Store(Path({str(tmp_path / "a")!r}), Killed({url!r})).make("graph", {{"of": 1}}, build)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, env=dict(os.environ))
    assert done.returncode == -9
    assert machine("b").find("graph", {"of": 1}) is None
    machine("a").make("graph", {"of": 1}, refuse)  # it had finished its own copy
    assert machine("b").find("graph", {"of": 1}) is not None


def test_files_with_the_same_content_are_kept_once(
    machine: Callable[[str], Store], url: str
) -> None:
    for number in range(3):
        machine("a").make("graph", {"of": number}, fill("x"))
    shared = SharedStore(url)
    assert len(shared._files.find(f"{shared._root}/files")) == 2
    assert len(shared._files.find(f"{shared._root}/records")) == 3


def test_a_store_that_works_passes_its_check(url: str) -> None:
    SharedStore(url).check()
    shared = SharedStore(url)
    assert shared._files.find(f"{shared._root}/records") == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("shared", "shared is not an address; give one such as"),
        ("nothing://x/y", "nothing://x/y: Protocol not known: nothing"),
        ("s3://no-such-bucket/x", r"s3://no-such-bucket/x: .*; check the address and the cred"),
    ],
)
def test_a_wrong_address_is_refused_in_one_line(
    url: str, words: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(StoreError, match=f"SDPACK_STORE: {words}") as refused:
        SharedStore(url).check()
    assert "\n" not in str(refused.value)


def test_a_full_shared_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("a file where the folder would be")
    store = Store(tmp_path / "a", SharedStore(f"file://{tmp_path}/shared"))
    with pytest.raises(StoreError, match=r"SDPACK_STORE: .*a file exists where a folder is needed"):
        store.make("graph", {"of": 1}, fill("x"))
