"""Two bundles side by side: scores paired prompt by prompt, images and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import altair as alt

from sdpack.documents.record import FIDELITY, PartFigures
from sdpack.domain.estimate import ENOUGH, Estimate
from sdpack.domain.licences import commercial_use
from sdpack.domain.placement import Role
from sdpack.errors import InputError
from sdpack.report.build_page import sheet_rows
from sdpack.report.figure import GREY, Figure, Row, color_by, configured
from sdpack.report.page import ENLARGED_SIDE, ImageRow, Page, Table, write_page
from sdpack.report.paired import paired
from sdpack.report.points import Build, Point, read_build
from sdpack.units import format_bytes

BETTER_COLOURS = ("#0072B2", "#D55E00")  # of the bundle that scored higher
UNCHANGED = "unchanged"
_BETTER = {FIDELITY: "is closer to its own fp32 than {}"}  # fidelity does not measure quality


@dataclass(frozen=True)
class BundleComparison:
    """The winners of two builds, compared.

    Attributes:
        difference: the first's score minus the second's, over the images both drew.
        images: the numbers of these images.
        prompts: how many different prompts they show.
        names: different names for the two bundles.
    """

    first: Build
    second: Build
    names: tuple[str, str]
    difference: Estimate
    images: tuple[int, ...]
    prompts: int

    @property
    def builds(self) -> tuple[Build, Build]:
        return self.first, self.second

    @property
    def metric(self) -> str:
        """The name of the score, which both share."""
        record = self.first.record
        return record.metric

    @property
    def verdict(self) -> str:
        """Which is better, in a sentence."""
        drawn = f"over the {self._count} both drew"
        if self._change == UNCHANGED:
            return f"Both score the same: {self.metric} is unchanged {drawn}."
        margin = f"{_told(self.difference)} {drawn}"
        if self.prompts < ENOUGH:
            return f"Too few prompts to tell: {self.metric} differs by {margin}."
        better = _BETTER.get(self.metric, "draws better than {}")
        if self.difference.low > 0:
            return f"{self.names[0]} {better.format(self.names[1])}: {margin}."
        if self.difference.high < 0:
            return f"{self.names[1]} {better.format(self.names[0])}: {margin}."
        return f"They cannot be told apart at 95 %: {self.metric} differs by {margin}."

    @property
    def summary(self) -> str:
        """One line: what changes from the first to the second, and what that costs."""
        first, second = (build.winner for build in self.builds)
        changes = [
            f"{role.words} {_name(first.parts.get(role))} -> {_name(second.parts.get(role))}"
            for role in Role
            if _name(first.parts.get(role)) != _name(second.parts.get(role))
        ]
        if first.placement != second.placement:
            changes.append(f"{first.placement} -> {second.placement}")
        return (
            f"{self.names[0]} -> {self.names[1]}: {', '.join(changes) or 'the same mix'}; "
            f"predicted peak {format_bytes(first.peak_bytes)} -> "
            f"{format_bytes(second.peak_bytes)}; "
            f"{self.metric} {self._change} over {self._count}."
        )

    @property
    def _count(self) -> str:
        if len(self.images) == self.prompts:
            return f"{self.prompts} prompts"
        return f"{len(self.images)} images of {self.prompts} prompts"

    @property
    def _change(self) -> str:
        """The change of the score from the first to the second."""
        none = self.difference.low == self.difference.value == self.difference.high == 0
        return UNCHANGED if none else _told(-self.difference)

    @property
    def caveat(self) -> str | None:
        """A warning if the two were drawn with different settings."""
        ways = [f"{_sampling(build)}, {build.record.drawn_with}" for build in self.builds]
        if ways[0] == ways[1]:
            return None
        return (
            "They were not drawn with the same settings, which may explain part of the difference: "
            f"{ways[0]} and {ways[1]}."
        )

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """A table of both: what the row is about, the first's value, the second's."""
        winners = [build.winner for build in self.builds]
        records = [build.record for build in self.builds]
        rows = [("mix", *(record.winner for record in records))]
        for role in (r for r in Role if any(r in winner.parts for winner in winners)):
            rows.append((role.words, *(_part(winner.parts.get(role)) for winner in winners)))
        rows += [
            ("run", *(winner.placement for winner in winners)),
            ("predicted peak", *(format_bytes(winner.peak_bytes) for winner in winners)),
            ("budget", *(format_bytes(record.memory.budget_bytes) for record in records)),
            ("profile", *(record.profile.name for record in records)),
            (self.metric, *(_quality(winner) for winner in winners)),
            ("KID to real images", *(_distance(build) for build in self.builds)),
            ("time per image on the build machine", *(_latency(build) for build in self.builds)),
            ("drawn on", *(record.measured_on for record in records)),
            ("categories", *(_weights(build) for build in self.builds)),
            ("sampling", *(_sampling(build) for build in self.builds)),
            ("commercial use", *(_commercial_use(build) for build in self.builds)),
        ]
        return [(row[0], row[1], row[2]) for row in rows]


def compare(first: Path, second: Path) -> BundleComparison:
    """The comparison of two bundles.

    Raises:
        InputError: their scores cannot be compared, with the reason.
        StoreError: one has no ledger, or a damaged one.
    """
    first_build, second_build = read_build(first), read_build(second)
    pair = f"{first} and {second} cannot be compared"
    winners = [build.winner.entrant for build in (first_build, second_build)]
    for what, first_value, second_value in (
        ("scored by", first_build.record.metric, second_build.record.metric),
        ("judged by", winners[0].judge[:12], winners[1].judge[:12]),
        ("of size", first_build.record.size, second_build.record.size),
    ):
        if first_value != second_value:
            raise InputError(
                f"{pair}: their images are {what} {first_value} and {second_value}; "
                "build both from one catalog at one size"
            )
    first_scores, second_scores = first_build.scores(winners[0]), second_build.scores(winners[1])
    numbers = sorted(first_scores.keys() & second_scores.keys())
    shared = [
        number
        for number in numbers
        if _prompt(first_build, number) == _prompt(second_build, number)
    ]
    if not shared:
        same = first_build.record.weights == second_build.record.weights
        what = "from one catalog" if same else "with the same --weigh"
        raise InputError(f"{pair}: they share no prompts; build both {what}")
    apart = paired({number: first_scores[number] for number in shared}, second_scores)
    names = (first_build.record.name, second_build.record.name)
    if names[0] == names[1]:
        names = (str(first), str(second))
    if names[0] == names[1]:
        names = (f"{first}", f"{second} again")
    away = apart.estimate(lambda number: _prompt(first_build, number))
    prompts = len({_prompt(first_build, number) for number in shared})
    return BundleComparison(first_build, second_build, names, away, tuple(shared), prompts)


def _prompt(build: Build, number: int) -> tuple[str, str]:
    """The prompt of an image, and what the judge compared it with."""
    record = build.record
    return record.prompts[number], record.caption(number)


def write_comparison(comparison: BundleComparison, folders: tuple[Path, Path], path: Path) -> None:
    """Write the comparison as a page with the images both drew.

    Raises:
        StoreError: it cannot be written.
    """
    write_page(comparison_page(comparison, folders), path, None)


def comparison_page(comparison: BundleComparison, folders: tuple[Path, Path]) -> Page:
    """The page of a comparison.

    Args:
        folders: the bundles' folders, which have their images.
    """
    names, record = comparison.names, comparison.first.record
    rows = []
    for build, name, folder in zip(comparison.builds, names, folders, strict=True):
        own = next(iter(sheet_rows(build, folder)), None)
        if own is not None:
            rows.append(ImageRow(name, own.mix, own.images))
    shown = min((len(row.images) for row in rows), default=0)
    same = [n for n in range(shown) if n in comparison.images]
    rows = [
        ImageRow(row.label, row.mix, [row.images[n] for n in same])
        for row in rows
        if same and len(rows) == 2
    ]
    return Page(
        title=f"{names[0]} and {names[1]}",
        subtitle=f"built {comparison.first.made_at} and {comparison.second.made_at}",
        summary=[comparison.verdict, *([comparison.caveat] if comparison.caveat else [])],
        figures=[by_prompt(comparison)],
        tables=[Table("Side by side", ("", *names), comparison.rows, open=True)],
        sheet=rows,
        prompts=[record.prompts[n] for n in same],
        sheet_caption=(
            "The same prompts from the same noise; below each image is its score "
            f"({comparison.metric})."
        ),
        small=max(record.size) <= ENLARGED_SIDE,
    )


def by_prompt(comparison: BundleComparison) -> Figure:
    """How much better the first scored on each prompt."""
    rows = _prompt_rows(comparison)
    title = f"{comparison.metric.capitalize()}, {comparison.names[0]} minus {comparison.names[1]}"
    band, line = _mean(comparison.difference, title)
    layers = alt.layer(
        band, _bars(rows, comparison.names, title), line, width="container", height=300
    )
    return Figure(
        "by-prompt",
        "Prompt by prompt",
        "Each bar is an image of a prompt that both drew from the same noise. The dashed line is "
        "the mean, and the band its 95 % interval.",
        f"Bars of the difference for {len(rows)} images; mean {comparison.difference.signed()}.",
        configured(layers),
        rows,
    )


def _prompt_rows(comparison: BundleComparison) -> list[Row]:
    """A row for each prompt, the one with the largest difference first."""
    one, other = (build.scores(build.winner.entrant) for build in comparison.builds)
    names = comparison.names
    rows: list[Row] = [
        {
            "prompt": _prompt(comparison.first, number),
            "difference": one[number] - other[number],
            "better": names[0] if one[number] >= other[number] else names[1],
            "first": one[number],
            "second": other[number],
        }
        for number in comparison.images
    ]
    rows.sort(key=lambda row: -float(row["difference"]))
    for place, row in enumerate(rows, 1):
        row["place"] = place
    return rows


def _bars(rows: list[Row], names: tuple[str, str], title: str) -> alt.Chart:
    axis = alt.Axis(labels=False, ticks=False)
    legend = alt.Legend(title="scored higher", orient="top")
    colours = dict(zip(names, BETTER_COLOURS, strict=True))
    bars: alt.Chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("place:O", title="Prompts, sorted", axis=axis),
            y=alt.Y("difference:Q", title=title),
            color=color_by("better", colours, legend),
            tooltip=[
                alt.Tooltip("prompt:N"),
                alt.Tooltip("first:Q", title=names[0], format=".3f"),
                alt.Tooltip("second:Q", title=names[1], format=".3f"),
            ],
        )
    )
    return bars


def _mean(away: Estimate, title: str) -> tuple[alt.Chart, alt.Chart]:
    """The interval of the mean as a band, and the mean as a line."""
    values = [{"mean": away.value, "low": away.low, "high": away.high}]
    mean = alt.Chart(alt.InlineData(values=values))
    band = mean.mark_rect(opacity=0.25, color=GREY).encode(
        y=alt.Y("low:Q", title=title), y2="high:Q"
    )
    line = mean.mark_rule(strokeDash=[6, 4], color=GREY).encode(y=alt.Y("mean:Q", title=title))
    return band, line


def _sampling(build: Build) -> str:
    sampling = build.record.sampling
    return f"{sampling.steps} steps, guidance {sampling.guidance_scale:g}"


def _told(difference: Estimate) -> str:
    """A difference with its interval."""
    return f"{difference.signed()} (95 % interval)"


def _name(part: PartFigures | None) -> str:
    return "none" if part is None else str(part)


def _part(part: PartFigures | None) -> str:
    if part is None:
        return "none"
    return f"{part}, {format_bytes(part.weight_bytes)}"


def _quality(winner: Point) -> str:
    return f"{winner.own}, {winner.images} images"


def _distance(build: Build) -> str:
    distance = build.distance(build.winner.entrant)
    return "not measured" if distance is None else f"{distance[1].to(1)}, {distance[0]} images"


def _weights(build: Build) -> str:
    """How much categories of prompts counted in the score."""
    named = build.record.weights.items()
    return ", ".join(f"{name} {weight:g}" for name, weight in named) or "all alike"


def _commercial_use(build: Build) -> str:
    """Whether the winner's licences allow commercial use, and the licences."""
    parts = build.record.licensed_parts(build.winner.entrant)
    names = ", ".join(dict.fromkeys(part.licence for part in parts))
    return f"{commercial_use(parts)} ({names})"


def _latency(build: Build) -> str:
    seconds = build.winner.latency_s
    if seconds is None:
        return "not measured"
    return f"{1000 * seconds:,.0f} ms on {build.record.machine}"
