"""`sdpack plan`: the predicted cost of a build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from sdpack.cli.options import profile_option
from sdpack.cli.output import json_option, print_json, print_lines, print_table, warn
from sdpack.cli.request_options import draw_on_option, read_options, request_options
from sdpack.cli.values import TEXT
from sdpack.domain.precision import weight_bits
from sdpack.pack.options import plan_request
from sdpack.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from sdpack.pack.forecast.build_plan import BuildPlan
    from sdpack.pack.forecast.intervals import Interval
    from sdpack.pack.request import BuildRequest


@click.command(
    "plan",
    epilog="""\b
Examples:
  sdpack plan --profile 4gb-gpu
  sdpack plan --profile 4gb-gpu --catalog sd15
  sdpack plan --profile 8gb-gpu --catalog sdxl --memory 5GiB --json
""",
)
@profile_option()
@request_options()
@draw_on_option
@click.option(
    "--memory",
    type=TEXT,
    help="Maximum peak memory of the pipeline, such as 24MiB; default: the profile's.",
)
@json_option
def command(profile_name: str, memory: str | None, as_json: bool, **options: Any) -> None:
    """Predict the cost of a build: downloads, disk space, images and hours.

    A plan needs no network connection: it neither downloads nor exports checkpoints, and draws no
    images. Only for a --model of the hub that is not on this machine, it fetches the configs and
    the headers of the weights (some hundred kilobytes). Times are ranges. They are based on a few
    timed operations, and every build on this machine refines them.
    """
    request = plan_request(read_options(profile_name, **options), memory, warn)
    show_plan(request, as_json)


def show_plan(request: BuildRequest, as_json: bool, not_planned: Sequence[str] = ()) -> None:
    """Print the plan of a request.

    Args:
        not_planned: options that were given, but that the prediction does not depend on.
    """
    plan = planned(request)
    if request.latency_limit_s is not None:
        not_planned = [*not_planned, f"the limit of {request.latency_limit_s:g} s per image"]
    if not_planned:
        warn(f"the plan is the same with and without {', '.join(not_planned)}")
    if as_json:
        totals = {"fetch_bytes": plan.fetch_bytes, "all_seconds": asdict(plan.all_seconds)}
        print_json({**asdict(plan), **totals})
    else:
        print_plan(request, plan)


def planned(request: BuildRequest) -> BuildPlan:
    """Return the plan of a request, based on this user's ledger."""
    from sdpack.pack.candidates import Candidates
    from sdpack.pack.forecast.build_plan import Planning
    from sdpack.store.artifacts import cache_folder
    from sdpack.store.ledger import Ledger

    ledger = Ledger(cache_folder() / "ledger.sqlite")
    try:
        return Planning(Candidates(request), ledger).plan()
    finally:
        ledger.close()


def print_plan(request: BuildRequest, plan: BuildPlan) -> None:
    """Print a plan as tables."""
    print_table(
        *_shares(plan), "the mixes of the catalog, by parameters", ("mix", "part", "candidate")
    )
    print_table(*_downloads(plan), "candidates", ("candidate", "part", "download"))
    if plan.judges:
        print_table(*_judges(plan), "judges", ("judge", "licence", "download"))
    budget = format_bytes(request.budget)
    print_lines(
        [
            f"{plan.uniform_mixes:,} mixes of candidates and precisions, each in up to "
            f"{plan.placements} placements; if memory is tight, mixed variants are added",
            f"the smallest mix, {plan.smallest}, needs at least "
            f"{format_bytes(plan.smallest_bytes)} of the {budget} available (a lower bound from "
            "its parameters)",
            *_unread(plan, request),
            f"download: {_download_total(plan)}",
            f"disk space for the cache: {_bytes_range(plan.disk)}",
            f"images to draw: {_count_range(plan.images.all)}",
        ]
    )
    headings, rows = _times(plan)
    print_table(headings, rows, "time by stage on this machine", headings[1:])
    refined = "refined by earlier builds" if plan.is_refined else "not yet refined by a build"
    print_lines([f"total: {_time_range(plan.all_seconds)}, {refined}"])


def _judges(plan: BuildPlan) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            f"{judge.name.removeprefix('other_judges.')}{' (decides)' if judge.decides else ''}",
            judge.licence or "not stated",
            "unknown" if judge.fetch_bytes is None else format_bytes(judge.fetch_bytes),
            "" if judge.parameters is None else format_count(judge.parameters),
            "" if judge.memory_bytes is None else format_bytes(judge.memory_bytes),
        ]
        for judge in plan.judges
    ]
    return ["judge", "licence", "download", "parameters", "memory"], rows


def _shares(plan: BuildPlan) -> tuple[list[str], list[list[str]]]:
    precisions = list(next(iter(plan.mixes.values()))[0].bytes_by_precision)
    headings = [
        "mix",
        "part",
        "candidate",
        "parameters",
        "share",
        *(f"{p} weights" for p in precisions),
    ]
    rows = []
    for label, parts in plan.mixes.items():
        for part in parts:
            sizes = [format_bytes(part.bytes_by_precision[p]) for p in precisions]
            rows.append(
                [
                    label,
                    part.role.words,
                    part.name,
                    format_count(part.parameters),
                    f"{part.share:.0%}",
                    *sizes,
                ]
            )
            label = ""
    return headings, rows


def _downloads(plan: BuildPlan) -> tuple[list[str], list[list[str]]]:
    rows = []
    for size in plan.sizes:
        about = "" if size.is_exact else "about "
        fetched = f"{about}{format_bytes(size.fetch_bytes)}"
        if not size.fetch_bytes:
            fetched = "none" if size.is_here else "shared"
        rows.append([size.name, size.role.words, format_count(size.parameters), fetched])
    return ["candidate", "part", "parameters", "download"], rows


def _unread(plan: BuildPlan, request: BuildRequest) -> list[str]:
    """Say which text encoders have layers that are not read, and the bytes that this saves."""
    widest = max(request.precisions, key=weight_bits)
    lines = []
    for size in plan.sizes:
        if size.unread:
            share = size.unread / (size.parameters + size.unread)
            saved = format_bytes(size.unread * weight_bits(widest) // 8)
            lines.append(
                f"{size.name}: {share:.1%} of its parameters are in layers that no denoiser reads; "
                f"they are left out, which saves {saved} in {widest}"
            )
    return lines


def _download_total(plan: BuildPlan) -> str:
    unknown = [judge for judge in plan.judges if judge.fetch_bytes is None]
    if not plan.fetch_bytes and not unknown:
        return "nothing; all files are on this machine"
    is_exact = not unknown and all(size.is_exact for size in plan.sizes)
    about = "" if is_exact else "about "
    return f"{about}{format_bytes(plan.fetch_bytes)}"


def _times(plan: BuildPlan) -> tuple[list[str], list[list[str]]]:
    rows = [
        [stage.value, format_duration(each.low), format_duration(each.high)]
        for stage, each in plan.seconds.items()
        if each.high > 0
    ]
    return ["stage", "at least", "at most"], rows


def _bytes_range(size: Interval) -> str:
    return f"{format_bytes(int(size.low))} to {format_bytes(int(size.high))}"


def _count_range(count: Interval) -> str:
    return f"{count.low:,.0f} to {count.high:,.0f}"


def _time_range(seconds: Interval) -> str:
    return f"{format_duration(seconds.low)} to {format_duration(seconds.high)}"
