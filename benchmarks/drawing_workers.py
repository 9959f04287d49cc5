"""What several workers change: python -m benchmarks.drawing_workers

A selection among all mixes that fit draws its images with one worker and with several, alternately.
The parts are built only once; before each run, the images and scores of the run before are set
aside. The table shows the seconds of each run, the ratio, and whether the scores are equal.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from sdpack.documents.record import DISTANCE, FIDELITY, SIMILARITY
from sdpack.pack.selection.selection import Selection
from sdpack.store.artifacts import CACHE_VARIABLE, cache_folder, digest
from sdpack.store.files import link
from sdpack.store.ledger import read_rows
from sdpack.units import parse_bytes

from benchmarks.budget_selections import open_selections
from benchmarks.measured_on import machine_and_versions

SCORES = (SIMILARITY, FIDELITY, DISTANCE)
DRAWN = ("states", "latents", "pictures")  # kinds of artifacts that a selection makes


@click.command()
@click.option("--profile", "name", default="4gb-gpu", show_default=True)
@click.option(
    "--catalog", "path", type=click.Path(path_type=Path), help="Catalog; default: the zoo."
)
@click.option("--budget", default="3GiB", show_default=True, help="Memory budget.")
@click.option("--prompts", default=16, show_default=True, help="Number of prompts per mix.")
@click.option("--workers", default=2, show_default=True, help="Compared with one.")
@click.option("--repeats", default=3, show_default=True, help="Runs with each.")
def main(
    name: str, path: Path | None, budget: str, prompts: int, workers: int, repeats: int
) -> None:
    """Print one table."""
    console = Console()
    with open_selections(name, path, prompts, console):
        pass  # builds the parts, if they are not in the cache
    table = Table(title=f"a selection with {prompts} prompts, {name}")
    for head in ("run", "1 worker", f"{workers} workers", "ratio", "scores"):
        table.add_column(head)
    ratios = []
    for run in range(1, repeats + 1):
        runs = []
        for count in (1, workers):
            with _without_images(cache_folder()) as copy, _used(copy):
                runs.append((_seconds(name, path, budget, prompts, count), _scores(copy)))
        (one, alone), (several, together) = runs
        ratios.append(one / several)
        equal = "equal" if alone == together else "different"
        table.add_row(str(run), f"{one:.0f} s", f"{several:.0f} s", f"{ratios[-1]:.2f}", equal)
        console.log(f"run {run} of {repeats}: {ratios[-1]:.2f} times as fast, scores {equal}")
    console.print(table)
    console.print(f"median of the ratios: {median(ratios):.2f}")
    console.print(machine_and_versions("sdpack", "onnxruntime", "torch", "numpy"))


def _seconds(name: str, path: Path | None, budget: str, prompts: int, workers: int) -> float:
    """Seconds of a selection, from its first image on, including the start of the workers."""
    with open_selections(name, path, prompts, Console(quiet=True), workers) as selections:
        evaluator = selections.evaluator(parse_bytes(budget))
        since = time.perf_counter()
        Selection(evaluator).run()
        return time.perf_counter() - since


def _scores(cache: Path) -> Mapping[str, Any]:
    """The scores in a ledger, by the hash of their inputs."""
    return {digest(row.inputs): row.value for row in read_rows(cache / "ledger.sqlite", SCORES)}


@contextmanager
def _without_images(cache: Path) -> Iterator[Path]:
    """A cache with the same parts, but without images and scores."""
    with tempfile.TemporaryDirectory(dir=cache.parent) as name:
        copy = Path(name)
        for kind in (cache / "store").iterdir():
            if kind.name not in (*DRAWN, "locks", "unfinished"):
                target = copy / "store" / kind.name
                shutil.copytree(kind, target, copy_function=lambda a, b: link(Path(a), Path(b)))
        with sqlite3.connect(cache / "ledger.sqlite") as source:
            target_ledger = sqlite3.connect(copy / "ledger.sqlite")
            source.backup(target_ledger)
        marks = ",".join("?" * len(SCORES))
        target_ledger.execute(f"DELETE FROM measurement WHERE kind IN ({marks})", SCORES)
        target_ledger.commit()
        target_ledger.close()
        yield copy


@contextmanager
def _used(cache: Path) -> Iterator[None]:
    """Use this cache within the context."""
    before = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = str(cache)
    try:
        yield
    finally:
        os.environ.pop(CACHE_VARIABLE) if before is None else os.environ.update(
            {CACHE_VARIABLE: before}
        )


if __name__ == "__main__":
    main()
