"""Time and memory of a build at full size: python -m benchmarks.full_scale --family sd15

`sdpack build` builds a model with random weights from an empty cache: of the size of Stable
Diffusion 1.5, XL or SANA 0.6B, or with the text encoder of FLUX.2 klein 4B. The benchmark times
each stage that the build reports, and samples the memory of the build and all processes it starts.
Random weights draw no images of anything, so the build measures fidelity to fp32 instead of
quality.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from sdpack.documents.profile import find_profile
from sdpack.domain.precision import Runtime
from sdpack.engines.detect import memory_bytes
from sdpack.errors import InfeasibleError, UnsupportedGraphError
from sdpack.export.adopt import adopt
from sdpack.memory.meter import meter
from sdpack.pack.candidates import Candidates
from sdpack.pack.planning.fit import MemoryEstimates, fit
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.planning.mix import Mix, mixes
from sdpack.pack.request import BuildRequest
from sdpack.pack.toolchain import Toolchain, open_toolchain
from sdpack.store.artifacts import CACHE_VARIABLE, cache_folder
from sdpack.units import format_bytes, parse_bytes

from benchmarks.measured_on import machine_and_versions
from benchmarks.metering import family, memory
from benchmarks.random_language_models import PARAMETERS as LANGUAGE_MODELS
from benchmarks.random_language_models import random_language_model
from benchmarks.random_models import PARAMETERS, random_model

EVERY_S = 0.1
MODELS = (*PARAMETERS, *LANGUAGE_MODELS)


@dataclass(frozen=True)
class TimedStage:
    """A stage that the build reported, with its time and memory.

    Attributes:
        peak_bytes: largest resident memory of the build and its processes; shared memory counts
            once for each process.
        private_bytes: the largest part of it that does not belong to mapped files.
    """

    words: str
    seconds: float
    peak_bytes: int
    private_bytes: int


@dataclass(frozen=True)
class Watched:
    """The result of a whole command."""

    stages: Sequence[TimedStage]
    seconds: float
    status: int
    output: str

    @property
    def peak_bytes(self) -> int:
        return max(stage.peak_bytes for stage in self.stages)

    @property
    def private_bytes(self) -> int:
        return max(stage.private_bytes for stage in self.stages)


def watch(command: Sequence[str], variables: dict[str, str]) -> Watched:
    """Run a command that reports its stages on standard error, one per line."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )
    peaks: list[tuple[float, int, int]] = []  # moment, resident, private
    done = threading.Event()

    def sample() -> None:
        while not done.is_set():
            private, whole = zip(*(memory(one) for one in family(process.pid)), strict=True)
            peaks.append((time.perf_counter(), sum(whole), sum(private)))
            done.wait(EVERY_S)

    sampler = threading.Thread(target=sample)
    sampler.start()
    said = [("starting", started)]
    assert process.stderr is not None
    for line in process.stderr:
        goes_on = any(line.startswith(f"{stage}: ") for stage, _ in said)  # a line of progress
        if line.strip() and not goes_on:
            said.append((line.strip(), time.perf_counter()))
            print(f"{time.perf_counter() - started:7.0f} s  {line.strip()}", flush=True)
    assert process.stdout is not None
    output = process.stdout.read()
    status = process.wait()
    done.set()
    sampler.join()
    ended = time.perf_counter()
    ends = [*(moment for _, moment in said[1:]), ended]
    stages = []
    for (words, begin), end in zip(said, ends, strict=True):
        within = [peak for peak in peaks if begin <= peak[0] <= end]
        whole = max((peak[1] for peak in within), default=0)
        private = max((peak[2] for peak in within), default=0)
        stages.append(TimedStage(words, end - begin, whole, private))
    return Watched(stages, ended - started, status, output)


def stages_table(watched: Watched) -> Table:
    """Return a table of the stages, grouped by kind, in the order of their first occurrence."""
    table = Table(title="what the build did, and took", title_justify="left")
    for column in ("stage", "seconds", "peak of all processes", "of that private"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in watched.stages:
        if stage.seconds >= 1:
            row = (f"{stage.seconds:.0f}", stage.peak_bytes, stage.private_bytes)
            table.add_row(stage.words[:100], row[0], *map(format_bytes, row[1:]))
    peaks = (watched.peak_bytes, watched.private_bytes)
    table.add_row("in all", f"{watched.seconds:.0f}", *map(format_bytes, peaks))
    return table


def variants_table(toolchain: Toolchain, every: Sequence[Mix]) -> Table:
    """Return a table of the size of each precision of each part, and the memory of its engine."""
    footprints = Footprints.of_toolchain(toolchain)
    table = Table(title="parts, by precision", title_justify="left")
    for column in ("part", "precision", "file", "engine weights", "engine scratch", "kept"):
        table.add_column(column, justify="left" if column in ("part", "precision") else "right")
    placement = toolchain.candidates.placements[0]
    for variant in dict.fromkeys(v for mix in every for v in mix.variants):
        try:
            made = toolchain.variants.built(variant)
            footprint = footprints.of(variant, placement)
        except UnsupportedGraphError as error:
            table.add_row(variant.candidate, variant.label, "refused", str(error)[-60:])
            continue
        table.add_row(
            variant.candidate,
            variant.label,
            format_bytes(made.artifact.bytes),
            format_bytes(footprint.weight_bytes),
            format_bytes(footprint.activation_bytes),
            str(len(made.refused)),
        )
    return table


def placements_table(toolchain: Toolchain, every: Sequence[Mix]) -> Table:
    """Return a table of the predicted peaks of the largest and smallest mix in each placement."""
    footprints = Footprints.of_toolchain(toolchain)
    table = Table(title="predicted peaks, by placement", title_justify="left")
    for column in ("placement", "widest mix", "peak", "narrowest mix", "peak"):
        table.add_column(column, justify="right" if column == "peak" else "left")
    memory = MemoryEstimates(footprints.of)
    for placement in toolchain.candidates.placements:
        try:
            fitted = fit(every, [placement], memory, memory_bytes() * 100)
        except InfeasibleError:
            continue
        ordered = sorted(fitted, key=lambda f: f.peak.bytes)
        widest, narrowest = ordered[-1], ordered[0]
        table.add_row(
            str(placement),
            str(widest.mix),
            format_bytes(widest.peak.bytes),
            str(narrowest.mix),
            format_bytes(narrowest.peak.bytes),
        )
    return table


@click.command()
@click.option(
    "--family", "name", type=click.Choice([*PARAMETERS, *LANGUAGE_MODELS]), default="sd15"
)
@click.option(
    "--profile",
    "profile_name",
    default="4gb-gpu",
    show_default=True,
    help="Profile: a name or a file.",
)
@click.option("--memory", help="Memory budget, as for `sdpack build`.")
@click.option("--images", default=1, show_default=True)
@click.option("--steps", default=2, show_default=True)
@click.option(
    "--keep/--fresh",
    default=False,
    help="Keep the cache of the last run, or start from an empty one.",
)
@click.option(
    "--draw", is_flag=True, help="Draw one image on the CPU with memory capped at the same budget."
)
def main(
    name: str,
    profile_name: str,
    memory: str | None,
    images: int,
    steps: int,
    keep: bool,
    draw: bool,
) -> None:
    """Build the model, and print time and memory by stage."""
    console = Console(width=180)
    make = random_language_model if name in LANGUAGE_MODELS else random_model
    model = make(name, cache_folder() / "benchmarks" / f"random-{name}")
    cache = cache_folder() / "benchmarks" / f"full-scale-{name}"
    if not keep:
        shutil.rmtree(cache, ignore_errors=True)
    out = cache / "bundles" / f"{Path(profile_name).stem}-{memory or 'all'}"
    command = [sys.executable, "-m", "sdpack", "-v", "build", "--profile", profile_name]
    command += ["--model", str(model), "--out", str(out), "--images", str(images)]
    command += ["--steps", str(steps), "--json", *(["--memory", memory] if memory else [])]
    console.print(
        f"{machine_and_versions('torch', 'onnxruntime', 'tensorrt_rtx_cu13')}, "
        f"{format_bytes(memory_bytes())} of memory"
    )
    watched = watch(command, {CACHE_VARIABLE: str(cache)})
    console.print(stages_table(watched))
    if watched.status != 0:
        sys.exit(watched.status)
    os.environ[CACHE_VARIABLE] = str(cache)
    profile = find_profile(profile_name)
    budget = None if memory is None else parse_bytes(memory)
    request = BuildRequest(profile, adopt(str(model)), out, budget, steps=steps)
    with open_toolchain(Candidates(request), console.log) as toolchain:
        every = list(mixes(request.located.catalog, request.precisions))
        console.print(variants_table(toolchain, every))
        console.print(placements_table(toolchain, every))
    manifest = json.loads(watched.output)
    winner = manifest["evidence"]["standings"][0]
    console.print(
        f"winner: {winner['mix']}, {winner['placement']}, {manifest['evidence']['metric']} "
        f"{winner['quality']['value']:.4f}, predicted {format_bytes(winner['peak_bytes'])}, budget "
        f"{format_bytes(request.budget)}"
    )
    if draw:
        console.print(drawn(out, request.budget))


def drawn(bundle: Path, cap_bytes: int) -> str:
    """Draw one image from a bundle on the CPU, with a cap on the memory of the process."""
    command = [sys.executable, "-m", "sdpack", "run", str(bundle), "a red fox", "--json"]
    command += ["--runtime", Runtime.ONNXRUNTIME_CPU.value, "--out", str(bundle.parent / "fox.png")]
    since = time.perf_counter()
    seen = meter(command, cap_bytes)
    held = "under a hard cap of" if seen.capped else "not capped, beside"
    return (
        f"a picture took {time.perf_counter() - since:.0f} s and {format_bytes(seen.peak_bytes)}, "
        f"{held} {format_bytes(cap_bytes)}"
    )


if __name__ == "__main__":
    main()
