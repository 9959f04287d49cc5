from __future__ import annotations

from pathlib import Path

from sdpack.store.artifacts import Store

from tests.sdpack.cli.calling import read_json, run


def test_the_cache_is_listed_and_emptied(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache" / "store")

    def write(folder: Path) -> None:
        (folder / "a").write_bytes(b"x" * 2048)

    store.make("graph", {"of": 1}, write)
    assert read_json("cache", "ls")["kinds"] == {"graph": {"count": 1, "bytes": 2048}}
    assert "2.0 KiB" in run("cache", "ls").output
    assert read_json("cache", "gc")["freed_bytes"] == 0
    assert read_json("cache", "gc", "--unused-for", "0")["freed_bytes"] == 2048
