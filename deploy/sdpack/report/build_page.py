"""The report of one build."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from sdpack.documents.evidence import compared, judge_words, weight_words
from sdpack.documents.layout import CHARTS, CONTACT_SHEET, REPORT, SHEET_GAP, VERIFIED
from sdpack.documents.record import SCREENED_OUT, BuildRecord, Entrant
from sdpack.domain.estimate import ENOUGH
from sdpack.domain.licences import licence_line
from sdpack.domain.placement import Role
from sdpack.errors import BundleError
from sdpack.evaluate.rules import Outcome
from sdpack.report.category_table import category_table
from sdpack.report.charts import PRECISION, build_figures
from sdpack.report.origin_rows import origin_rows
from sdpack.report.page import (
    ENLARGED_SIDE,
    FilterOption,
    ImageRow,
    Page,
    PageImage,
    Table,
    image_uri,
    write_page,
)
from sdpack.report.points import Build, Point, read_build
from sdpack.units import format_bytes, format_duration


def write_report(
    source: Path, out: Path | None = None, name: str | None = None
) -> tuple[Build, Path]:
    """Write the report of a bundle, or of a build in a ledger: HTML, and its charts as PNGs.

    Args:
        out: the HTML file; default: in the bundle's folder, or for a ledger the current one.
        name: name of the build, if the ledger has several; default: the last.

    Raises:
        StoreError: the ledger is missing, or it holds no build of this name.
    """
    build = read_build(source, name)
    bundle = source if source.is_dir() else None
    path = out or ((bundle / REPORT) if bundle else Path(REPORT))
    charts = path.parent / (CHARTS if path.name == REPORT else f"{path.stem}-{CHARTS}")
    write_page(report(build, bundle), path, charts)
    return build, path


def report(build: Build, bundle: Path | None) -> Page:
    """The page of one build.

    Args:
        bundle: its folder, for its images and the memory that `verify` measured; None omits
            both.
    """
    record = build.record
    rows = list(sheet_rows(build, bundle)) if bundle else []
    side = max(record.size)
    return Page(
        title=f"{record.name}: {record.winner}",
        subtitle=(
            f"{record.catalog} for {record.profile.name} ({record.profile.description}), "
            f"{record.sampling.width}x{record.sampling.height} pixels, {record.sampling.steps} "
            f"steps; built {build.made_at}"
        ),
        summary=summary(build),
        figures=build_figures(build, _measured(bundle)),
        tables=[
            _mixes(build),
            *category_table(build),
            *_beaten_parts(build),
            _costs(build),
            _reproduce(build),
        ],
        choices=_choices(build.points),
        sheet=rows,
        prompts=record.prompts[: record.shown_prompts],
        sheet_caption=(
            "Every row draws the same prompts from the same noise; below each image is its score "
            f"({record.metric})."
        ),
        small=side <= ENLARGED_SIDE,
    )


BASES = {
    "best": "No mix that raced has a better mean over the images that both drew.",
    "shown equal": (
        "It was shown equal to every mix with a better mean: the whole interval of the difference "
        "is within {near:g}. Among such mixes --prefer {prefer} decides."
    ),
    "open": (
        "A comparison with a mix of a better mean is still open, within {near:g}; "
        "--prefer {prefer} accepts that."
    ),
}


def summary(build: Build) -> list[str]:
    """Which mix was chosen and why, in a few sentences."""
    record, winner = build.record, build.winner
    peak, budget = (format_bytes(n) for n in (winner.peak_bytes, record.memory.budget_bytes))
    lines = [
        f"{record.winner} was chosen for {peak} of {budget}: {record.metric} "
        f"{winner.own.value:.3f} over {winner.images} images, drawn on {record.measured_on}."
    ]
    those = compared(record.latency_limit, record.time_limit)
    if record.basis == "open" and those == "were tried":
        lines.append("A comparison with a mix of a better mean was open when the time was up.")
    elif record.basis is not None and record.prefer is not None:
        lines.append(BASES[record.basis].format(prefer=record.prefer, near=record.indifference))
    outcomes = [e.outcome for e in record.entrants if e.outcome not in (None, SCREENED_OUT)]
    field = f"{record.fitting:,} mixes {those}{_scope(record)}"
    if record.screened is not None:
        field += f", {len(outcomes)} of them raced"
    if Outcome.BROKEN in outcomes:
        field += f", {outcomes.count(Outcome.BROKEN)} drew broken images"
    raced = [p for p in build.points[1:] if p.entrant.outcome not in (None, SCREENED_OUT)]
    if Outcome.UNLIKE in outcomes:
        field += f", {outcomes.count(Outcome.UNLIKE)} may not win, as they look unlike fp32"
        raced = [point for point in raced if point.entrant.outcome != Outcome.UNLIKE]
    if raced:
        rival = max(raced, key=lambda point: point.difference.value)
        lines.append(f"Of the others, {rival.mix} came closest: {_rival(rival, winner)}; {field}.")
    else:
        lines.append(f"No other mix raced; {field}.")
    preselection = record.preselection
    if preselection is not None and preselection.beaten:
        lines.append(preselection.words())
    lines += weight_words(record.weights)
    lines += judge_words(record.other_judges, record.judges_left_out)
    if record.appearance is not None:
        lines.append(record.appearance.words())
    parts = record.licensed_parts(winner.entrant)
    return [*lines, *_limits(build), licence_line(parts)]


def _scope(record: BuildRecord) -> str:
    """Which sets of parts the compared mixes belong to, if others were left out before."""
    return "" if record.preselection is None else record.preselection.scope


def _limits(build: Build) -> Iterator[str]:
    """The limits on the time of an image and of the build, if there are any."""
    latency, time = build.record.latency_limit, build.record.time_limit
    expected_s = build.winner.latency_s
    if latency is not None and expected_s is not None:
        yield latency.words(expected_s)
    if time is not None and not time.is_complete:
        yield (
            f"The build was limited to {format_duration(time.seconds)} and left out: "
            f"{', '.join(time.left_out)}."
        )


def _rival(rival: Point, winner: Point) -> str:
    """How the closest other mix differs, in quality and bytes."""
    margin = f"{rival.difference.signed()} over {rival.paired} images"
    if rival.paired < ENOUGH:
        margin = f"{rival.difference.value:+.3f} over {rival.paired} images, too few to tell"
    apart = rival.entrant.size_bytes - winner.entrant.size_bytes
    if apart == 0:
        return f"{margin}, no smaller"
    return f"{margin}, {format_bytes(abs(apart))} {'larger' if apart > 0 else 'smaller'}"


def _measured(bundle: Path | None) -> dict[str, int]:
    """The peak in bytes that `verify` measured, by where, if it is comparable to the prediction."""
    path = None if bundle is None else bundle / VERIFIED
    if path is None or not path.is_file():
        return {}
    try:
        measured = json.loads(path.read_text(encoding="utf-8"))
        if measured["predicted_bytes"] is None:  # not the memory that was predicted
            return {}
        return {f"measured ({measured['runtime']})": int(measured["measured_bytes"])}
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise BundleError(
            f"{path} cannot be read ({cause!r}); run `sdpack verify` again"
        ) from cause


def _choices(points: Sequence[Point]) -> dict[str, FilterOption]:
    options: dict[str, FilterOption] = {}
    for role in Role:
        names = {str(p.parts[role]) for p in points if role in p.parts}
        if names:
            options[role.value] = FilterOption(role.words, sorted(names))
    stored = {part.base_precision for p in points for part in p.parts.values()}
    options[PRECISION] = FilterOption("any part in", sorted(stored))
    return options


def _mixes(build: Build) -> Table:
    roles = [role for role in Role if any(role in p.parts for p in build.points)]
    with_steps = any(entrant.steps for entrant in build.record.entrants)
    columns = (
        *(role.words for role in roles),
        *(["steps"] if with_steps else []),
        "peak",
        "run",
        build.record.metric,
        "vs. winner",
        "interval",
        "own mean, 95 %",
        "images, paired of all",
        "KID",
        "time per image",
        "in the race",
    )
    rows = [_mix_row(build, point, roles, with_steps) for point in build.points]
    for entrant in build.record.entrants:
        why = build.broken(entrant)
        if why is not None:
            parts = [str(entrant.parts[role]) if role in entrant.parts else "" for role in roles]
            peak = format_bytes(entrant.peak.bytes)
            rows.append([*parts, *_steps(entrant, with_steps), peak, *[""] * 8, f"broken: {why}"])
    first = len(roles) + with_steps
    right = frozenset({first, first + 2, first + 6, first + 8})
    return Table(f"All {len(rows)} mixes that were drawn", columns, rows, right)


def _steps(entrant: Entrant, with_steps: bool) -> list[str]:
    """The cell of the column of steps, if there is one."""
    return [str(entrant.steps or "")] if with_steps else []


def _mix_row(build: Build, point: Point, roles: Sequence[Role], with_steps: bool) -> list[str]:
    parts = point.parts
    kid = build.distance(point.entrant)
    return [
        *(str(parts[role]) if role in parts else "" for role in roles),
        *_steps(point.entrant, with_steps),
        format_bytes(point.peak_bytes),
        point.placement if point.entrant.fits else "does not fit",
        f"{point.quality.value:.3f}",
        point.difference.signed(),
        "of the race" if point.raced else "95 %",
        str(point.own),
        f"{point.paired} of {point.images}",
        "" if kid is None else f"{kid[1].to(1)}, {kid[0]} images",
        "" if point.latency_s is None else f"{1000 * point.latency_s:,.0f} ms",
        _outcome(point),
    ]


def _outcome(point: Point) -> str:
    """How the race ended for a mix, and which mix it lost to."""
    outcome, rival = point.entrant.outcome, point.entrant.lost_to
    if outcome is None:
        return "drawn for comparison"
    return outcome if rival is None else f"{outcome}: {rival}"


def _beaten_parts(build: Build) -> Iterator[Table]:
    """The sets of parts that were left out before the race, if there are any."""
    preselection = build.record.preselection
    if preselection is not None and preselection.beaten:
        rows = []
        for each in preselection.beaten:
            own, bounded = each.quality, each.low is not None and each.high is not None
            apart = f"{each.difference:+.3f}"
            if bounded:
                apart += f" [{each.low:+.3f}, {each.high:+.3f}]"
            figures = [f"{own.value:.3f} [{own.low:.3f}, {own.high:.3f}]", apart]
            if each.is_broken:
                figures = ["broken", ""]
            rows.append([each.parts, *figures, str(own.pictures)])
        columns = ("parts", f"{build.record.metric} in fp32, 95 %", "vs. winner", "images")
        title = f"{len(rows)} sets of parts that are worse than the winner even in fp32"
        yield Table(title, columns, rows, frozenset({3}))


def _costs(build: Build) -> Table:
    rows = [
        [
            cost.role.words,
            cost.candidate,
            cost.precision,
            format_bytes(cost.weight_bytes),
            f"{cost.widest}, {format_bytes(cost.widest_bytes)}",
            cost.difference.signed(4),
            str(cost.pictures),
            cost.within,
        ]
        for cost in build.costs
    ]
    columns = (
        "role",
        "candidate",
        "precision",
        "weights",
        "compared with",
        "change of the score, 95 %",
        "images",
        "with",
    )
    return Table("What each precision costs, in numbers", columns, rows, frozenset({3, 6}))


def _reproduce(build: Build) -> Table:
    record, winner = build.record, build.winner.entrant
    memory, screened = record.profile.memory, record.screened
    rows = [
        ["build", f"{record.name}, {build.made_at}"],
        ["machine it ran on", record.machine],
        ["images drawn on", record.measured_on],
        [
            "profile",
            f"{record.profile.name}: {record.profile.runtime}, {format_bytes(memory.total)}, "
            f"reserve {format_bytes(memory.reserve)}",
        ],
        ["catalog", record.catalog],
        ["budget", f"{record.memory.budget_bytes:,} bytes"],
        [
            "sampling",
            f"{record.sampling.steps} steps, guidance {record.sampling.guidance_scale:g}, negative "
            f"prompt {record.sampling.negative_prompt!r}",
        ],
        ["prompts", record.prompt_words],
        [
            "race",
            f"confidence {record.confidence:.0%} for all mixes and rounds together, indifference "
            f"{record.indifference:g}, prefer {record.prefer or 'the smaller'}; "
            f"{record.fitting:,} mixes {compared(record.latency_limit, record.time_limit)}"
            f"{_scope(record)}"
            + (
                ""
                if screened is None
                else f", {screened.left_out:,} left out by a screening that was off by at most "
                f"{screened.error:.3f} in {screened.checked} checks"
            ),
        ],
        *([tool, version] for tool, version in record.tools.items()),
        *origin_rows(record.origins),
        *(
            [f"{role.words} of the winner", f"SHA-256 {part.content}"]
            for role, part in winner.parts.items()
        ),
        ["sampling recipe", f"SHA-256 {winner.recipe}"],
        ["judge", f"SHA-256 {winner.judge}"],
    ]
    return Table("To reproduce this", (), rows)


def sheet_rows(build: Build, bundle: Path) -> Iterator[ImageRow]:
    """The images of a bundle's contact sheet, the winner's first; none if it has no sheet.

    Raises:
        BundleError: the sheet is damaged.
    """
    path, record = bundle / CONTACT_SHEET, build.record
    if not path.is_file():
        return
    height, width = record.size
    rows, columns = len(record.shown), record.shown_prompts
    try:
        whole = Image.open(path).convert("RGB")
    except (OSError, SyntaxError, ValueError) as cause:
        raise BundleError(f"{path} cannot be read ({cause}); copy the bundle again") from cause
    if whole.size != (
        SHEET_GAP + columns * (width + SHEET_GAP),
        SHEET_GAP + rows * (height + SHEET_GAP),
    ):
        raise BundleError(
            f"{path} is {whole.width}x{whole.height}, too small for {rows} rows of {columns} "
            f"images of {width}x{height}; copy the bundle again"
        )
    for number, shown in enumerate(record.shown):
        scores = _scores(build, shown.mix)
        top = SHEET_GAP + number * (height + SHEET_GAP)
        images = []
        for column in range(columns):
            left = SHEET_GAP + column * (width + SHEET_GAP)
            cut = whole.crop((left, top, left + width, top + height))
            images.append(PageImage(image_uri(cut), scores.get(column)))
        yield ImageRow(shown.label, shown.mix, images)


def _scores(build: Build, mix: str | None) -> Mapping[int, float]:
    for entrant in build.record.entrants:
        if entrant.mix == mix:
            return build.scores(entrant)
    return {}
