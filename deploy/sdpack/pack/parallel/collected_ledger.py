"""A ledger that collects rows instead of writing them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdpack.store.artifacts import Inputs
from sdpack.store.ledger import Ledger, Measurement, new_row, row_key


class CollectedLedger(Ledger):
    """A ledger's rows, read-only, and the rows that were measured since it was opened.

    Worker processes use it: only the process that started them writes the ledger.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, reading=True)
        self._new: dict[str, Measurement] = {}
        self._collected: list[Measurement] = []

    def row(self, kind: str, inputs: Inputs) -> Measurement | None:
        """Return the row of these inputs, collected or written; None if there is none."""
        return self._new.get(row_key(kind, inputs)) or super().row(kind, inputs)

    def record(self, kind: str, inputs: Inputs, value: Mapping[str, Any]) -> Measurement:
        """Collect a row."""
        row = new_row(kind, inputs, value)
        self._new[row_key(kind, inputs)] = row
        self._collected.append(row)
        return row

    def collect(self) -> list[Measurement]:
        """Return the rows that were collected since the last call."""
        rows, self._collected = self._collected, []
        return rows
