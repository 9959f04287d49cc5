"""Two bundles side by side: scores paired prompt by prompt, pictures and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import altair as alt

from sdpack.documents.record import FIDELITY, PartFigures
from sdpack.domain.estimate import ENOUGH, Estimate, difference_estimate
from sdpack.domain.placement import Role
from sdpack.errors import InputError
from sdpack.report.build_page import sheet_rows
from sdpack.report.charts import Figure, configured
from sdpack.report.page import SMALL, Page, PictureRow, Table, write_page
from sdpack.report.points import Build, paired, read_build
from sdpack.units import format_bytes

_BETTER = {FIDELITY: "is closer to its own fp32 than {}"}  # which is not quality


@dataclass(frozen=True)
class BundleComparison:
    """The winners of two builds.

    Attributes:
        difference: the first's score minus the second's, over the prompts both drew.
        prompts: their numbers.
        names: what the two are called, never the same.
    """

    first: Build
    second: Build
    names: tuple[str, str]
    difference: Estimate
    prompts: tuple[int, ...]

    @property
    def verdict(self) -> str:
        """In a sentence."""
        told = f"{_told(self.difference)} over the {len(self.prompts)} prompts both drew"
        if len(self.prompts) < ENOUGH:
            return f"Too few prompts to tell: {self.first.record.metric} differs by {told}."
        better = _BETTER.get(self.first.record.metric, "draws better than {}")
        if self.difference.low > 0:
            return f"{self.names[0]} {better.format(self.names[1])}: {told}."
        if self.difference.high < 0:
            return f"{self.names[1]} {better.format(self.names[0])}: {told}."
        return f"They cannot be told apart at 95 %: {self.first.record.metric} differs by {told}."

    @property
    def summary(self) -> str:
        """One line on what the second has in place of the first's, and what that costs."""
        one, other = (build.winner for build in (self.first, self.second))
        changes = [
            f"{role.words} {_name(one.entrant.parts.get(role))} -> "
            f"{_name(other.entrant.parts.get(role))}"
            for role in Role
            if _name(one.entrant.parts.get(role)) != _name(other.entrant.parts.get(role))
        ]
        if one.placement != other.placement:
            changes.append(f"{one.placement} -> {other.placement}")
        return (
            f"{self.names[0]} -> {self.names[1]}: {', '.join(changes) or 'the same mix'}; "
            f"predicted peak {format_bytes(one.peak_bytes)} -> {format_bytes(other.peak_bytes)}; "
            f"{self.first.record.metric} {self._change} over {len(self.prompts)} prompts."
        )

    @property
    def _change(self) -> str:
        """Of the score, from the first to the second."""
        none = self.difference.low == self.difference.value == self.difference.high == 0
        return "unchanged" if none else _told(-self.difference)

    @property
    def caveat(self) -> str | None:
        """What else than the mixes was not the same."""
        builds = (self.first, self.second)
        ways = [f"{_sampling(build)}, {build.record.drawn_with}" for build in builds]
        if ways[0] == ways[1]:
            return None
        return (
            "They were not drawn with the same settings, which may explain part of the difference: "
            f"{ways[0]} and {ways[1]}."
        )

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """What they are and take, a row of each: what, the first's, the second's."""
        builds = (self.first, self.second)
        found = [("mix", *(build.record.winner for build in builds))]
        roles = [r for r in Role if any(r in b.winner.entrant.parts for b in builds)]
        for role in roles:
            found.append((role.words, *(_part(b.winner.entrant.parts.get(role)) for b in builds)))
        found += [
            ("run", *(build.winner.placement for build in builds)),
            ("predicted peak", *(format_bytes(build.winner.peak_bytes) for build in builds)),
            ("budget", *(format_bytes(build.record.memory.budget_bytes) for build in builds)),
            ("profile", *(build.record.profile.name for build in builds)),
            (self.first.record.metric, *(_quality(build) for build in builds)),
            ("KID to real pictures", *(_distance(build) for build in builds)),
            ("time per picture on the build machine", *(_latency(build) for build in builds)),
            ("drawn on", *(build.record.measured_on for build in builds)),
            ("sampling", *(_sampling(build) for build in builds)),
        ]
        return [(row[0], row[1], row[2]) for row in found]


def compare(first: Path, second: Path) -> BundleComparison:
    """The comparison of two bundles.

    Raises:
        InputError: their scores cannot be compared, with the reason.
        StoreError: one has no ledger, or a damaged one.
    """
    one, other = read_build(first), read_build(second)
    pair = f"{first} and {second} cannot be compared"
    for what, seen, wanted in (
        ("scored by", one.record.metric, other.record.metric),
        ("judged by", one.winner.entrant.judge[:12], other.winner.entrant.judge[:12]),
        ("of size", one.record.size, other.record.size),
    ):
        if seen != wanted:
            raise InputError(
                f"{pair}: their pictures are {what} {seen} and {wanted}; build both from one "
                "catalog at one size"
            )
    mine, theirs = (build.scores(build.winner.entrant) for build in (one, other))
    numbers = sorted(mine.keys() & theirs.keys())
    shared = [number for number in numbers if _prompt(one, number) == _prompt(other, number)]
    if not shared:
        raise InputError(f"{pair}: they share no prompts; build both from one catalog")
    apart = paired({number: mine[number] for number in shared}, theirs)
    names = (one.record.name, other.record.name)
    if names[0] == names[1]:
        names = (str(first), str(second))
    if names[0] == names[1]:
        names = (f"{first}", f"{second} again")
    return BundleComparison(one, other, names, difference_estimate(apart), tuple(shared))


def _prompt(build: Build, number: int) -> str:
    return build.record.prompts[number]


def write_comparison(found: BundleComparison, folders: tuple[Path, Path], path: Path) -> None:
    """The comparison as a page with the pictures both drew.

    Raises:
        StoreError: it cannot be written.
    """
    write_page(comparison_page(found, folders), path, None)


def comparison_page(found: BundleComparison, folders: tuple[Path, Path]) -> Page:
    """The page.

    Args:
        folders: of the bundles, for their pictures.
    """
    builds = (found.first, found.second)
    names = found.names
    rows = []
    for build, name, folder in zip(builds, names, folders, strict=True):
        own = next(iter(sheet_rows(build, folder)), None)
        if own is not None:
            rows.append(PictureRow(name, own.mix, own.pictures))
    shown = min((len(row.pictures) for row in rows), default=0)
    same = [n for n in range(shown) if n in found.prompts]
    rows = [
        PictureRow(row.label, row.mix, [row.pictures[n] for n in same])
        for row in rows
        if same and len(rows) == 2
    ]
    return Page(
        title=f"{names[0]} and {names[1]}",
        subtitle=f"built {found.first.made_at} and {found.second.made_at}",
        said=[found.verdict, *([found.caveat] if found.caveat else [])],
        figures=[by_prompt(found)],
        tables=[Table("Side by side", ("", *names), found.rows, open=True)],
        sheet=rows,
        prompts=[_prompt(found.first, n) for n in same],
        sheet_caption=(
            "The same prompts from the same noise; below each picture is its score "
            f"({found.first.record.metric})."
        ),
        small=max(found.first.record.size) <= SMALL,
    )


def by_prompt(found: BundleComparison) -> Figure:
    """How much better the first drew each prompt."""
    one, other = (b.scores(b.winner.entrant) for b in (found.first, found.second))
    names = found.names
    rows = [
        {
            "prompt": _prompt(found.first, number),
            "difference": one[number] - other[number],
            "better": names[0] if one[number] >= other[number] else names[1],
            "first": one[number],
            "second": other[number],
        }
        for number in found.prompts
    ]
    rows.sort(key=lambda row: -float(str(row["difference"])))
    for place, row in enumerate(rows, 1):
        row["place"] = place
    title = f"{found.first.record.metric.capitalize()}, {names[0]} minus {names[1]}"
    bars = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("place:O", title="Prompts, sorted", axis=alt.Axis(labels=False, ticks=False)),
            y=alt.Y("difference:Q", title=title),
            color=alt.Color(
                "better:N",
                scale=alt.Scale(domain=list(names), range=["#0072B2", "#D55E00"]),
                legend=alt.Legend(title="scored higher", orient="top"),
            ),
            tooltip=[
                alt.Tooltip("prompt:N"),
                alt.Tooltip("first:Q", title=names[0], format=".3f"),
                alt.Tooltip("second:Q", title=names[1], format=".3f"),
            ],
        )
    )
    away = found.difference
    mean = alt.Chart(
        alt.InlineData(values=[{"mean": away.value, "low": away.low, "high": away.high}])
    )
    band = mean.mark_rect(opacity=0.25, color="#777").encode(
        y=alt.Y("low:Q", title=title), y2="high:Q"
    )
    line = mean.mark_rule(strokeDash=[6, 4], color="#777").encode(y=alt.Y("mean:Q", title=title))
    return Figure(
        "by-prompt",
        "Prompt by prompt",
        "Each bar is a prompt both drew from the same noise. The dashed line is the mean, and the "
        "band its 95 % interval.",
        f"Bars of the difference for {len(rows)} prompts; mean {away.signed()}.",
        configured(alt.layer(band, bars, line, width="container", height=300)),
        rows,
    )


def _sampling(build: Build) -> str:
    sampling = build.record.sampling
    return f"{sampling.steps} steps, guidance {sampling.guidance_scale:g}"


def _told(difference: Estimate) -> str:
    """A difference, its interval named for what it is."""
    return f"{difference.signed()} (95 % interval)"


def _name(part: PartFigures | None) -> str:
    return "none" if part is None else str(part)


def _part(part: PartFigures | None) -> str:
    if part is None:
        return "none"
    return f"{part}, {format_bytes(part.weight_bytes)}"


def _quality(build: Build) -> str:
    return f"{build.winner.own}, {build.winner.pictures} pictures"


def _distance(build: Build) -> str:
    found = build.distance(build.winner.entrant)
    return "not measured" if found is None else f"{found[1].to(1)}, {found[0]} pictures"


def _latency(build: Build) -> str:
    seconds = build.winner.latency_s
    if seconds is None:
        return "not measured"
    return f"{1000 * seconds:,.0f} ms on {build.record.machine}"
