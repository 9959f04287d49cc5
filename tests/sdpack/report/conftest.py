from __future__ import annotations

from pathlib import Path

import pytest
from sdpack.report.build_page import write_report

from benchmarks.example_ledgers import ledger_of_many, ledger_of_study


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of a build that drew 216 mixes."""
    path = tmp_path_factory.mktemp("report") / "ledger.sqlite"
    ledger_of_many(path)
    return path


@pytest.fixture(scope="session")
def page(many: Path) -> Path:
    """Its report."""
    _, path = write_report(many, many.parent / "report.html")
    return path


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Of a study of a few budgets."""
    path = tmp_path / "ledger.sqlite"
    ledger_of_study(path)
    return path
