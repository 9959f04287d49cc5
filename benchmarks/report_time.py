"""How long a report takes to write and to open: python -m benchmarks.report_time

The report is of an artificial ledger with 216 mixes and 5,000 rows of scores. It is opened
in headless Chromium, until the last chart is shown.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table
from sdpack.report.build_page import write_report
from sdpack.store.ledger import read_rows
from sdpack.units import format_bytes

from benchmarks.example_ledgers import METRIC, ledger_of_many
from benchmarks.measured_on import machine_and_versions

DRAWN = "document.documentElement.dataset.drawn"


def opened(page: Path, rounds: int) -> Iterator[float]:
    """Return the seconds until the page is shown, for each of several times."""
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for _ in range(rounds):
            tab = browser.new_page()
            since = time.perf_counter()
            tab.goto(page.as_uri())
            tab.wait_for_function(f"{DRAWN} === '4'")
            yield time.perf_counter() - since
            tab.close()
        browser.close()


@click.command()
@click.option(
    "--prompts",
    default=768,
    show_default=True,
    help="Prompts of the winner; other mixes have half as many.",
)
@click.option("--rounds", default=5, show_default=True)
def main(prompts: int, rounds: int) -> None:
    """Print one table."""
    with tempfile.TemporaryDirectory() as scratch:
        ledger, page = Path(scratch) / "ledger.sqlite", Path(scratch) / "report.html"
        record, _ = ledger_of_many(ledger, prompts=prompts)
        rows = len(read_rows(ledger, [METRIC]))
        drawing = []
        for _ in range(rounds):
            since = time.perf_counter()
            write_report(ledger, page)
            drawing.append(time.perf_counter() - since)
        size, opening = page.stat().st_size, list(opened(page, rounds))
    table = Table(title=f"{len(record.entrants)} mixes, {rows:,} rows", title_justify="left")
    for column in ("what", "median", "most"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, seen in (("drawn, with four PNGs", drawing), ("opened", opening)):
        table.add_row(name, f"{statistics.median(seen):.2f} s", f"{max(seen):.2f} s")
    table.add_row("size of the page", format_bytes(size), "")
    console = Console(width=110)
    console.print(table)
    console.print(machine_and_versions("sdpack", "altair", "vl-convert-python"))


if __name__ == "__main__":
    main()
