from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from sdpack.errors import StoreError
from sdpack.store.ledger import Ledger, Measurement, read_rows, write_rows

ROWS = [
    Measurement("quality", {"mix": "a"}, {"scores": [0.5]}, "2026-01-01T00:00:00Z"),
    Measurement("latency", {"mix": "a"}, {"seconds": 0.25}, "2026-01-01T00:00:01Z"),
]


def test_the_ledger_remembers(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    ledger.record("quality", {"mix": "a"}, {"similarity": 0.1 + 0.2})
    ledger.record("quality", {"mix": "a"}, {"similarity": 0.25})
    ledger.close()
    again = Ledger(path)
    assert again.find("quality", {"mix": "a"}) == {"similarity": 0.25}
    assert again.find("quality", {"mix": "b"}) is None
    (row,) = again.measurements("quality")
    assert row.inputs == {"mix": "a"}
    assert list(again.measurements("memory")) == []


def test_a_damaged_ledger_is_explained_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match="move it away"):
        Ledger(path)
    assert path.read_bytes().startswith(b"this is")


def test_a_number_that_is_none_is_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Ledger(tmp_path / "l.sqlite").record("quality", {}, {"x": float("nan")})


def test_a_ledger_of_another_schema_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=7")
    before = path.read_bytes()
    for use in (lambda: Ledger(path), lambda: read_rows(path, ["quality"])):
        with pytest.raises(StoreError, match=r"has schema 7, but this sdpack reads schema 1"):
            use()
    assert path.read_bytes() == before


def test_reading_changes_nothing_and_does_not_make_a_ledger(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE mine (x)")
    before = other.read_bytes()
    with pytest.raises(StoreError, match="no such table"):
        read_rows(other, ["quality"])
    assert other.read_bytes() == before
    with pytest.raises(StoreError, match="cannot be read: No such file"):
        read_rows(tmp_path / "absent.sqlite", ["quality"])
    assert not (tmp_path / "absent.sqlite").exists()


def test_a_half_written_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    ledger.record("quality", {"mix": "a"}, {"scores": [0.5]})
    ledger.close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE measurement SET value = substr(value, 1, 9)")
    with pytest.raises(StoreError, match=r"row [0-9a-f]{12} \(quality\) is incomplete"):
        read_rows(path, ["quality"])
    with pytest.raises(StoreError, match=r"a row of quality is incomplete"):
        Ledger(path).find("quality", {"mix": "a"})


def test_rows_in_a_file_of_their_own_come_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write_rows(path, ROWS)
    assert read_rows(path, ["quality", "latency"]) == ROWS
    assert read_rows(path, ["latency"]) == ROWS[1:]
    written = path.read_bytes()
    write_rows(path, ROWS)
    assert path.read_bytes() == written


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[:-20], "line 3 is incomplete"),
        (lambda text: "", "its first line names no schema"),
        (lambda text: text.replace(": 1}", ": 2}", 1), "has schema 2, but this sdpack reads"),
        (lambda text: text + "[1]\n", "line 4 is not a JSON object"),
        (lambda text: text + '{"kind": "x"}\n', "line 4 is not a row of a ledger"),
        (lambda text: "PK\x03\x04" + text, "line 1 is incomplete"),
    ],
)
def test_a_damaged_file_of_rows_is_explained(tmp_path: Path, change: object, said: str) -> None:
    assert callable(change)
    path = tmp_path / "ledger.jsonl"
    write_rows(path, ROWS)
    path.write_text(change(path.read_text()))
    with pytest.raises(StoreError, match=said):
        read_rows(path, ["quality"])


def test_bytes_that_are_no_text_are_no_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StoreError, match="is not a ledger"):
        read_rows(path, ["quality"])


def test_a_row_is_a_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write_rows(path, ROWS)
    header, first, _ = map(json.loads, path.read_text().splitlines())
    assert header == {"sdpack_ledger": 1}
    assert first["value"] == {"scores": [0.5]}
