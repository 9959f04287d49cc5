"""Rows that a worker measures."""

from __future__ import annotations

from pathlib import Path

import pytest
from sdpack.errors import StoreError
from sdpack.pack.parallel.collected_ledger import CollectedLedger
from sdpack.store.ledger import Ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.record("similarity", {"mix": "old"}, {"scores": [0.25]})
    ledger.close()
    return tmp_path / "ledger.sqlite"


def test_new_rows_are_found_and_handed_over_but_not_written(path: Path) -> None:
    collected = CollectedLedger(path)
    collected.record("similarity", {"mix": "new"}, {"scores": [0.5]})
    assert collected.find("similarity", {"mix": "old"}) == {"scores": [0.25]}
    assert collected.find("similarity", {"mix": "new"}) == {"scores": [0.5]}
    assert collected.find("fidelity", {"mix": "new"}) is None
    assert [(row.kind, row.inputs, row.value) for row in collected.collect()] == [
        ("similarity", {"mix": "new"}, {"scores": [0.5]})
    ]
    assert collected.collect() == []
    assert collected.find("similarity", {"mix": "new"}) == {"scores": [0.5]}
    collected.close()
    written = Ledger(path, reading=True)
    assert written.find("similarity", {"mix": "new"}) is None
    written.close()


def test_rows_that_others_write_meanwhile_are_found(path: Path) -> None:
    collected, writer = CollectedLedger(path), Ledger(path)
    writer.record("similarity", {"mix": "other"}, {"scores": [0.75]})
    assert collected.find("similarity", {"mix": "other"}) == {"scores": [0.75]}
    writer.close()
    collected.close()


def test_a_ledger_that_is_missing_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open"):
        CollectedLedger(tmp_path / "ledger.sqlite")
    assert not [*tmp_path.iterdir()]
