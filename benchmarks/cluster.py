"""Builds on a cluster: python -m benchmarks.cluster simulate | overhead

`simulate` does the jobs of a catalog's plan with 10 to 1,000 workers, without doing their work: the
code that assigns jobs is the real one, durations come from the plan and their spread from the
ledger. `overhead` measures what Ray adds to a task, with real workers that only wait.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from sdpack.documents.catalog_files import located_catalog
from sdpack.documents.profile import find_profile
from sdpack.domain.placement import Role
from sdpack.pack.candidates import Candidates
from sdpack.pack.forecast.build_plan import Planning
from sdpack.pack.forecast.stages import Stage
from sdpack.pack.planning.mix import Mix, mixes
from sdpack.pack.request import BuildRequest
from sdpack.pack.selection.rounds import finalists_of, screened_prompts
from sdpack.pack.selection.time_left import STAYING, latents_of
from sdpack.quantization.quantizable_graph import GAIN_SHARES
from sdpack.store.artifacts import cache_folder
from sdpack.store.ledger import Ledger, Measurement
from sdpack.workers.jobs import WorkerJob
from sdpack.workers.pool import WorkerPool
from sdpack.workers.ray_cluster import WorkerNeeds, connected
from sdpack.workers.ray_pool import RayPool

from benchmarks.cluster_simulation import SimulatedRound, Simulation, Trouble, doubled
from benchmarks.measured_on import machine_and_versions
from benchmarks.waiting_workers import make_importable, open_waiting

KEPT_DENOISERS = 2  # that a preselection leaves; see docs/decisions/0019
HOUR = 3600.0
TROUBLES = {
    "no trouble": {},
    "1 task in 50 takes 4 times as long": {"slow_share": 0.02},
    "each worker dies once in 4 hours": {"mtbf_s": 4 * HOUR},
}
TOGETHER = (Stage.SENSITIVITY, Stage.ROUND)  # done at the same time
PART_STAGES = (Stage.EXPORT, Stage.CALIBRATE, Stage.SENSITIVITY, Stage.ROUND, Stage.ENGINES)


@click.group()
def main() -> None:
    """Simulate a build on a cluster, or measure what Ray costs."""


@main.command()
@click.option("--catalog", default="sd15", show_default=True)
@click.option("--profile", default="4gb-gpu", show_default=True)
@click.option("--workers", default="10,30,100,300,1000", show_default=True)
def simulate(catalog: str, profile: str, workers: str) -> None:
    """Print the efficiency by number of workers, and where it is lost."""
    console, ledger = Console(), Ledger(cache_folder() / "ledger.sqlite")
    request = BuildRequest(find_profile(profile), located_catalog(catalog), Path("unused"))
    planning = Planning(Candidates(request), ledger)
    rounds = build_rounds(planning, request)
    spread = measured_spread(list(ledger.measurements("latency")))
    work = sum(sum(each.seconds) for each in rounds)
    jobs = sum(len(each.seconds) for each in rounds)
    console.print(
        f"{catalog} for {profile}: {jobs:,} tasks in {len(rounds)} rounds, "
        f"{work / HOUR:,.0f} hours of work; {len(spread)} durations of the ledger, from "
        f"{min(spread):.2f} to {max(spread):.2f} of their median"
    )
    counts = [int(count) for count in workers.split(",")]
    table = Table(title="efficiency")
    for head in ("workers", "hours", *TROUBLES):
        table.add_column(head, justify="right")
    slowest = {}
    for count in counts:
        cells, hours = [], 0.0
        for values in TROUBLES.values():
            simulation = Simulation(count, Trouble(spread=spread, **values), random.Random(0))
            cells.append(f"{simulation.run(rounds):.0%}")
            if not values:
                hours = sum(took for _, took, _ in simulation.by_round) / HOUR
                slowest[count] = simulation
        table.add_row(f"{count:,}", f"{hours:,.1f}", *cells)
    console.print(table)
    console.print(_lost(slowest))
    console.print(machine_and_versions("sdpack", "ray"))


def _lost(simulations: dict[int, Simulation]) -> Table:
    """The share of the workers' time that each stage leaves unused."""
    table = Table(title="unused share of all workers' time, by stage, without trouble")
    names = list(dict.fromkeys(name for s in simulations.values() for name, _, _ in s.by_round))
    for head in ("workers", *names):
        table.add_column(head, justify="right")
    for count, simulation in simulations.items():
        whole = sum(took for _, took, _ in simulation.by_round)
        lost = dict.fromkeys(names, 0.0)
        for name, took, efficiency in simulation.by_round:
            lost[name] += took * (1 - efficiency) / whole
        table.add_row(f"{count:,}", *(f"{share:.0%}" for share in lost.values()))
    return table


def build_rounds(planning: Planning, request: BuildRequest) -> list[SimulatedRound]:
    """The rounds of a build with everything to do, as its plan predicts them."""
    every = list(mixes(request.catalog, request.precisions, request.step_choices))
    seconds, units = planning.seconds(), planning.units()
    by_stage = {
        stage: _stage(stage, seconds[stage].middle, int(units[stage]))
        for stage in PART_STAGES
        if seconds[stage].middle
    }
    exports = by_stage.pop(Stage.EXPORT)
    together = [by_stage.pop(stage) for stage in TOGETHER if stage in by_stage]
    image_s = seconds[Stage.DRAW].middle / planning.plan().images.all.middle
    return [
        exports,
        *_drawing(request, every, image_s, fp32=True),
        *[each for stage, each in by_stage.items() if stage is Stage.CALIBRATE],
        SimulatedRound(
            "sensitivity and rounding",
            tuple(s for each in together for s in each.seconds),
            sum(each.groups for each in together),
        ),
        *[each for stage, each in by_stage.items() if stage is Stage.ENGINES],
        *_drawing(request, every, image_s, fp32=False),
    ]


def _stage(stage: Stage, seconds: float, parts: int) -> SimulatedRound:
    """The jobs of a stage: one for each part, or for each share of it."""
    shares = GAIN_SHARES if stage is Stage.SENSITIVITY else 1
    count = max(1, parts) * shares
    return SimulatedRound(stage.value, (seconds / count,) * count, groups=max(1, parts))


def _drawing(
    request: BuildRequest, every: Sequence[Mix], image_s: float, fp32: bool
) -> list[SimulatedRound]:
    """The rounds that draw: a preselection, or a screening and a race; each image is a task."""
    denoisers = sorted({mix.denoiser.candidate for mix in every})
    rules, few = request.rules, finalists_of(request.is_large)
    if fp32:
        return [_round("preselection", len(denoisers), rules.first, image_s)]
    kept = [mix for mix in every if mix.denoiser.candidate in denoisers[:KEPT_DENOISERS]]
    variants = {
        role: len({v for mix in kept for v in mix.variants if v.role is role}) for role in Role
    }
    # A screening draws a reference for each denoiser, and one variant at a time in its place.
    changed = sum(count for role, count in variants.items() if count and role is not Role.DECODER)
    rounds = []
    screened = screened_prompts(rules, rules.most)
    for seen, upto in doubled(rules.first, screened):
        later = min(screened, 2 * upto) - upto
        one = _round("screening", changed, upto - seen, image_s)
        rounds.append(replace(one, ahead=changed * later))
        if not seen:
            rounds.append(_round("screening", few // 2, upto, image_s))
    racing = min(float(few), len(latents_of(kept)))
    for seen, upto in doubled(rules.first, rules.most):
        if seen >= rules.enough:
            racing = max(2.0, STAYING * racing)
        # On the first prompts, the screening drew half of them.
        new = round(racing if upto > screened else racing / 2)
        one = _round("race", new, upto - seen, image_s)
        ahead = new * (min(rules.most, 2 * upto) - upto)
        rounds.append(replace(one, ahead=ahead, staying=STAYING))
    return rounds


def _round(name: str, latents: int, prompts: int, image_s: float) -> SimulatedRound:
    return SimulatedRound(name, (image_s,) * (latents * prompts), groups=max(1, latents))


def measured_spread(rows: Sequence[Measurement]) -> list[float]:
    """The measured seconds per image of the mixes in a ledger, divided by their median."""
    seconds = [float(row.value["seconds"]) for row in rows]
    middle = statistics.median(seconds) if seconds else 1.0
    return [each / middle for each in seconds] or [1.0]


@main.command()
@click.option("--tasks", default=200, show_default=True)
@click.option("--seconds", default=0.1, show_default=True, help="Of a task.")
@click.option("--repeats", default=3, show_default=True)
def overhead(tasks: int, seconds: float, repeats: int) -> None:
    """Print what a task costs beside its work, in worker processes and with Ray."""
    make_importable()
    console = Console()
    table = Table(title=f"{tasks} tasks of {seconds * 1000:.0f} ms; overhead of a task in ms")
    for head in ("run", "workers", "worker processes", "Ray", "start of Ray"):
        table.add_column(head, justify="right")
    for run in range(1, repeats + 1):
        for count in (1, 2):
            with WorkerPool(open_waiting, count, 1, _silent) as pool:
                local, _ = _overhead(pool, tasks, seconds, count)
            with (
                connected(None, count),
                RayPool(open_waiting, WorkerNeeds(1, 2**28), count, _silent) as ray_pool,
            ):
                ray, start = _overhead(ray_pool, tasks, seconds, count)
            cells = (f"{local * 1000:.1f}", f"{ray * 1000:.1f}", f"{start:.1f} s")
            table.add_row(str(run), str(count), *cells)
    console.print(table)
    console.print(machine_and_versions("sdpack", "ray"))


def _silent(_: str) -> None:
    pass


def _overhead(
    pool: WorkerPool | RayPool, tasks: int, seconds: float, count: int
) -> tuple[float, float]:
    """Seconds of a task beside its work, and seconds until the first workers have begun."""
    since = time.perf_counter()
    list(pool.run([WorkerJob("begin", str(n), 0.0) for n in range(count)]))
    started = time.perf_counter() - since
    jobs = [WorkerJob(f"task {n}", str(n), seconds) for n in range(tasks)]
    since = time.perf_counter()
    list(pool.run(jobs))
    elapsed = time.perf_counter() - since
    return elapsed * count / tasks - seconds, started


if __name__ == "__main__":
    main()
