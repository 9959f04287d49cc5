"""Memory and time of each placement at full size: python -m benchmarks.placement_costs

The model has the size of Stable Diffusion 1.5 and random weights at one precision, and draws images
of 512 x 512 pixels on this CPU. For each placement, `sdpack build` gets slightly more memory than
the predicted peak, and its bundle draws one image in a process limited to that budget. A build
never chooses a placement that needs more memory than a faster one, so these are not measured.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from sdpack.documents.profile import find_profile, profiles_folder
from sdpack.domain.placement import Loading, Placement
from sdpack.engines.detect import memory_bytes
from sdpack.export.adopt import adopt
from sdpack.memory.meter import MeterError, meter
from sdpack.pack.candidates import Candidates
from sdpack.pack.planning.fit import MemoryEstimates, fit
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.planning.mix import mixes
from sdpack.pack.request import BuildRequest
from sdpack.pack.toolchain import open_toolchain
from sdpack.store.artifacts import CACHE_VARIABLE, cache_folder
from sdpack.units import format_bytes

from benchmarks.measured_on import machine_and_versions
from benchmarks.metering import take
from benchmarks.random_models import PARAMETERS, random_model

LIMIT_S = 3600
ALLOWED = 1.05  # of the predicted peak is what a process may take


def narrowed(folder: Path, precision: str, loading: str | None) -> Path:
    """Return the profile of a CPU with 8 GB, with one precision and optionally one loading."""
    path = folder / f"placements-{precision}.yaml"
    text = (profiles_folder() / "cpu-8gb.yaml").read_text()
    asked = f"precisions: [{precision}]\n"
    if loading is not None:
        asked += f"loading: [{loading}]\n"
    path.write_text(text.replace("runtime:", f"{asked}runtime:"))
    return path


def peaks(request: BuildRequest, console: Console) -> tuple[str, dict[Placement, int]]:
    """Return the only uniform mix of the request, and its predicted peak in each placement."""
    candidates = Candidates(request)
    with open_toolchain(candidates, console.log) as toolchain:
        footprints = Footprints.of_toolchain(toolchain)
        every = list(mixes(request.located.catalog, request.precisions))
        memory = MemoryEstimates(footprints.of, footprints.fixed_bytes)
        return str(every[0]), {
            place: fit(every, [place], memory, memory_bytes() * 100)[0].peak.bytes
            for place in candidates.placements
        }


@click.command()
@click.option("--family", "name", type=click.Choice(list(PARAMETERS)), default="sd15")
@click.option("--precision", default="fp32", show_default=True)
@click.option(
    "--loading",
    type=click.Choice([way.value for way in Loading]),
    help="Measure only this loading.",
)
@click.option("--steps", default=4, show_default=True)
def main(name: str, precision: str, loading: str | None, steps: int) -> None:
    """Print one table."""
    console = Console(width=140)
    model = random_model(name, cache_folder() / "benchmarks" / f"random-{name}")
    cache = cache_folder() / "benchmarks" / f"full-scale-{name}"
    cache.mkdir(parents=True, exist_ok=True)
    os.environ[CACHE_VARIABLE] = str(cache)
    profile = narrowed(cache, precision, loading)
    out = cache / "bundles" / "placements"
    request = BuildRequest(find_profile(str(profile)), adopt(str(model)), out, steps=steps)
    only, found = peaks(request, console)
    table = Table(
        title=f"{name} in {precision}, one picture in {steps} steps", title_justify="left"
    )
    columns = ("placement", "predicted", "measured", "measured / predicted", "cap", "seconds")
    for column in columns:
        table.add_column(column, justify="left" if column == "placement" else "right")

    def add(*cells: str) -> None:
        table.add_row(*cells)
        console.log(", ".join(cells))  # so that an interrupted run has printed its results

    chosen = wanted(found)
    for place, peak in found.items():
        if place not in chosen:
            add(str(place), format_bytes(peak), "takes no less than a faster one")
            continue
        budget = int(ALLOWED * peak)
        command = [sys.executable, "-m", "sdpack", "build", "--profile", str(profile)]
        command += ["--model", str(model), "--out", str(out), "--images", "1", "--json"]
        command += ["--steps", str(steps), "--memory", f"{budget // 1024}KiB"]
        built = take(command, LIMIT_S)
        if built.failed:
            sys.exit(f"{place}: {built.failed}")
        manifest = json.loads((out / "manifest.json").read_text())
        winner = manifest["evidence"]["standings"][0]
        if (winner["placement"], winner["mix"]) != (str(place), only):
            add(str(place), format_bytes(peak), f"{winner['mix']} {winner['placement']} won")
            continue
        draw = [sys.executable, "-m", "sdpack", "run", str(out), "a red fox", "--json"]
        draw += ["--runtime", "onnxruntime-cpu", "--out", str(cache / "fox.png")]
        since = time.perf_counter()
        try:
            seen = meter(draw, budget)
        except MeterError as error:
            add(str(place), format_bytes(peak), str(error)[:60])
            continue
        add(
            str(place),
            format_bytes(peak),
            format_bytes(seen.peak_bytes),
            f"{seen.peak_bytes / peak:.3f}",
            format_bytes(budget) if seen.capped else "none",
            f"{time.perf_counter() - since:.0f}",
        )
    console.print(table)
    console.print(machine_and_versions("sdpack", "onnxruntime"))


def wanted(found: dict[Placement, int]) -> set[Placement]:
    """Return the placements that a build chooses if it gets `ALLOWED` times their peak."""
    places = list(found)
    return {
        place
        for number, place in enumerate(places)
        if all(found[faster] > ALLOWED * found[place] for faster in places[:number])
    }


if __name__ == "__main__":
    main()
