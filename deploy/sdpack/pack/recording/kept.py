"""A record in the ledger, and the file with the rows that it is based on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from sdpack.documents.record import DISTANCE, LATENCY, DrawnRecord
from sdpack.pack.context import BuildContext
from sdpack.store.ledger import Ledger, Measurement, write_rows

Record = TypeVar("Record", bound=DrawnRecord)


@dataclass(frozen=True)
class Kept(Generic[Record]):
    """A record in the ledger, and the rows that it is based on."""

    record: Record
    row: Measurement
    ledger: Ledger

    def write(self, path: Path) -> None:
        """Write the record and its rows into a file of their own."""
        write_rows(path, [self.row, *self._rows()])

    def _rows(self) -> Iterator[Measurement]:
        for row in self.ledger.measurements(self.record.metric, LATENCY, DISTANCE):
            with suppress(KeyError, TypeError):  # of a kind that this version does not write
                if self.record.takes(row):
                    yield row


def keep(
    context: BuildContext, kind: str, record: Record, settings: Mapping[str, Any]
) -> Kept[Record]:
    """Write a record into the ledger, unless the same record is there already.

    Args:
        settings: the inputs of the record in addition to those that all kinds of records share.
    """
    request, ledger = context.request, context.ledger
    inputs = {
        "name": record.name,
        "profile": record.profile.model_dump(mode="json"),
        "catalog": context.catalog.model_dump(mode="json"),
        "sizes": [list(size) for size in request.sizes],
        "batch": request.batch,
        "steps": request.steps,
        "max_seconds": request.latency_limit_s,
        "weights": dict(record.weights),
        "rules": [record.confidence, record.indifference, len(record.prompts), record.prefer],
        "tools": dict(record.tools),
        "machine": record.machine,
        **settings,
    }
    value = record.model_dump(mode="json", by_alias=True)
    row = ledger.row(kind, inputs)
    if row is None or row.value != value:
        row = ledger.record(kind, inputs, value)
    return Kept(record, row, ledger)
