"""The ledger: measurements, keyed by kind and inputs.

ledger.sqlite    in a cache: every measurement made with it
ledger.jsonl     in a bundle: the rows behind its choice; a header, then one row per line
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdpack.errors import StoreError
from sdpack.store.artifacts import Inputs, digest
from sdpack.store.files import explain_io

LEDGER_SCHEMA = 1  # of rows; a ledger without a schema number has this one
SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True)
class Measurement:
    """One row: the value measured for these inputs, and when."""

    kind: str
    inputs: dict[str, Any]
    value: dict[str, Any]
    made_at: str


class Ledger:
    """Measurements by kind and inputs, in an SQLite file; one writer, any number of readers."""

    def __init__(self, path: Path, reading: bool = False) -> None:
        """Open or create the file.

        Args:
            reading: open an existing file read-only.

        Raises:
            StoreError: it cannot be opened, is not a ledger, or has another schema.
        """
        self.path = path
        with self._explained():
            if reading:
                self._database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._database = sqlite3.connect(path)
            _check_schema(path, self._database.execute("PRAGMA user_version").fetchone()[0])
            if reading:
                return
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS measurement ("
                "key TEXT PRIMARY KEY, kind TEXT NOT NULL, inputs TEXT NOT NULL, "
                "value TEXT NOT NULL, made_at TEXT NOT NULL) WITHOUT ROWID"
            )
            self._database.execute(f"PRAGMA user_version={LEDGER_SCHEMA}")

    def find(self, kind: str, inputs: Inputs) -> dict[str, Any] | None:
        """Return the value measured for these inputs, or None."""
        row = self.row(kind, inputs)
        return None if row is None else row.value

    def row(self, kind: str, inputs: Inputs) -> Measurement | None:
        """Return the row of these inputs, or None."""
        with self._explained():
            row = self._database.execute(
                "SELECT value, made_at FROM measurement WHERE key = ?", (row_key(kind, inputs),)
            ).fetchone()
        if row is None:
            return None
        value = _read(f"{self.path}: a row of {kind}", row[0])
        return Measurement(kind, dict(inputs), value, row[1])

    def record(self, kind: str, inputs: Inputs, value: Mapping[str, Any]) -> Measurement:
        """Store a value, replacing any earlier one for the same inputs, and return its row."""
        new = new_row(kind, inputs, value)
        self.keep(new)
        return new

    def keep(self, new: Measurement) -> None:
        """Store a row that was measured elsewhere, replacing any earlier one for its inputs."""
        key = row_key(new.kind, new.inputs)
        row = (key, new.kind, _json(new.inputs), _json(new.value), new.made_at)
        with self._explained(), self._database:
            self._database.execute("INSERT OR REPLACE INTO measurement VALUES (?,?,?,?,?)", row)

    def measurements(self, *kinds: str) -> Iterator[Measurement]:
        """Yield all rows of these kinds, in the order of their keys.

        Raises:
            StoreError: a row is half-written.
        """
        marks = ",".join("?" * len(kinds))
        with self._explained():
            rows = self._database.execute(
                "SELECT key, kind, inputs, value, made_at FROM measurement "
                f"WHERE kind IN ({marks}) ORDER BY key",
                kinds,
            ).fetchall()
        for key, name, inputs, value, made_at in rows:
            where = f"{self.path}: row {key[:12]} ({name})"
            yield Measurement(name, _read(where, inputs), _read(where, value), made_at)

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as cause:
            busy = isinstance(cause, sqlite3.OperationalError) and "locked" in str(cause)
            raise StoreError(
                f"{self.path}: {cause}; "
                + (
                    "another sdpack is writing it: wait until it has finished"
                    if busy
                    else "if it is damaged, move it away; its measurements will be repeated"
                )
            ) from cause
        except OSError as cause:
            raise StoreError(explain_io(cause, self.path)) from cause


def write_rows(path: Path, rows: Iterable[Measurement]) -> None:
    """Write rows to a ledger file; the same rows give the same bytes."""
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"sdpack_ledger": LEDGER_SCHEMA}) + "\n")
        for row in rows:
            file.write(_json(asdict(row)) + "\n")


def read_rows(path: Path, kinds: Iterable[str]) -> list[Measurement]:
    """Return the rows of these kinds from the ledger of a cache or of a bundle.

    Raises:
        StoreError: the file is missing, is not a ledger, has another schema, or has a half-written
            row.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(SQLITE))
    except OSError as cause:
        raise StoreError(f"{path} cannot be read: {cause.strerror}; check the path") from cause
    if start == SQLITE:
        ledger = Ledger(path, reading=True)
        try:
            return list(ledger.measurements(*kinds))
        finally:
            ledger.close()
    return list(_lines(path, frozenset(kinds)))


def _lines(path: Path, kinds: frozenset[str]) -> Iterator[Measurement]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise StoreError(f"{path} is not a ledger: {cause}; check the path") from cause
    header = _read(f"{path}, line 1", lines[0]) if lines else {}
    if "sdpack_ledger" not in header:
        raise StoreError(f"{path} is not a ledger: its first line names no schema; check the path")
    _check_schema(path, header["sdpack_ledger"])
    for number, line in enumerate(lines[1:], 2):
        where = f"{path}, line {number}"
        fields = _read(where, line)
        try:
            row = Measurement(**fields)
        except TypeError as cause:
            raise StoreError(f"{where} is not a row of a ledger; {_AGAIN}") from cause
        if row.kind in kinds:
            yield row


def _check_schema(path: Path, schema: object) -> None:
    if schema not in (0, LEDGER_SCHEMA):
        raise StoreError(
            f"{path} has schema {schema}, but this sdpack reads schema {LEDGER_SCHEMA}; use the "
            "sdpack that wrote it, or another cache (SDPACK_CACHE)"
        )


_AGAIN = "the file was truncated or changed: copy it again, or delete the row and build again"


def _read(where: str, text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError as cause:
        raise StoreError(f"{where} is incomplete ({cause}); {_AGAIN}") from cause
    if not isinstance(values, dict):
        raise StoreError(f"{where} is not a JSON object; {_AGAIN}")
    return values


def new_row(kind: str, inputs: Inputs, value: Mapping[str, Any]) -> Measurement:
    """A row that is measured now."""
    made_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Measurement(kind, dict(inputs), dict(value), made_at)


def row_key(kind: str, inputs: Inputs) -> str:
    """The key of a row: one hash of its kind and inputs."""
    return digest({"kind": kind, "inputs": inputs})


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)
