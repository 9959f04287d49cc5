"""The numbers a report is drawn from, computed from the rows of a ledger.

Mixes of one race are scored on the same prompts from the same noise; early losers were only scored
on the first of them. A mix is therefore placed by its difference from the winner on the prompts
both drew:

    quality = the winner's mean + mean(its scores - the winner's)

and its interval is that of the difference, which says more than two means with intervals. For a mix
that raced, it is the interval that decided the race, computed from the same scores by the same
rule; for a mix that was drawn for other reasons, it is a 95 % interval (Student's t).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import ValidationError

from sdpack.documents.layout import LEDGER, MANIFEST
from sdpack.documents.record import (
    BUILD,
    DISTANCE,
    LATENCY,
    SCREENED_OUT,
    SEEDS,
    STUDY,
    BuildRecord,
    DrawnRecord,
    Entrant,
    PartFigures,
    scored_key,
)
from sdpack.domain.estimate import Estimate
from sdpack.domain.placement import Role
from sdpack.errors import StoreError
from sdpack.evaluate.confidence import Looks, interval
from sdpack.evaluate.rules import Outcome
from sdpack.report.paired import Paired, Scores, mean_score, paired
from sdpack.store.ledger import Measurement, read_rows

Record = TypeVar("Record", bound=DrawnRecord)


@dataclass(frozen=True)
class Point:
    """One mix in the charts.

    Attributes:
        quality: the winner's mean plus the difference from it; the winner's own has no interval.
        own: the mean over its own images, with its interval.
        difference: from the winner, over the `paired` prompts both drew.
        raced: whether the interval of the difference is the race's; otherwise it is a 95 %
            interval.
        latency_s: seconds per image (`Build.shown_latency_s`); None if not known.
        on_front, on_latency_front: whether it fits and no other mix that fits is both better and
            smaller (or both better and faster).
    """

    entrant: Entrant
    quality: Estimate
    own: Estimate
    difference: Estimate
    images: int
    paired: int
    latency_s: float | None
    raced: bool = False
    on_front: bool = False
    on_latency_front: bool = False

    @property
    def mix(self) -> str:
        return self.entrant.mix

    @property
    def parts(self) -> Mapping[Role, PartFigures]:
        return self.entrant.parts

    @property
    def peak_bytes(self) -> int:
        peak = self.entrant.peak
        return peak.bytes

    @property
    def placement(self) -> str:
        return str(self.entrant.placement)


@dataclass(frozen=True)
class Cost:
    """What one precision of one part costs in quality, all else equal.

    Attributes:
        difference: from the same part stored widest, over the prompts both drew.
        within: the other parts, which the two compared mixes share.
    """

    role: Role
    candidate: str
    precision: str
    weight_bytes: int
    widest: str
    widest_bytes: int
    difference: Estimate
    pictures: int
    within: str


class DrawnMixes:
    """The scores, latencies and distances of the mixes of one record.

    Raises:
        StoreError: a row is incomplete.
    """

    made_by = BUILD

    def __init__(self, record: DrawnRecord, rows: Iterable[Measurement], made_at: str) -> None:
        self.drawn = record
        self.made_at = made_at
        self._scores: dict[str, dict[int, float]] = {}
        self._broken: dict[str, str] = {}
        self._latencies: dict[str, list[tuple[Mapping[str, object], float]]] = {}
        self._distances: dict[str, tuple[int, Estimate]] = {}
        for row in rows:
            try:
                self._take(row)
            except (KeyError, TypeError, ValueError) as cause:
                raise StoreError(
                    f"a row of the ledger ({row.kind}, {row.made_at}) is incomplete: {cause!r}; "
                    f"delete it and run `sdpack {self.made_by}` again"
                ) from cause

    def _take(self, row: Measurement) -> None:
        if not self.drawn.takes(row):
            return
        key = scored_key(row.inputs)
        if row.kind == self.drawn.metric:
            mine = self._scores.setdefault(key, {})
            for number, score in zip(row.inputs[SEEDS], row.value["scores"], strict=True):
                mine[int(number)] = float(score)
            if "broken" in row.value:
                self._broken[key] = str(row.value["broken"])
        elif row.kind == LATENCY:
            times = self._latencies.setdefault(key, [])
            times.append((row.inputs, float(row.value["seconds"])))
        elif row.kind == DISTANCE:
            seen = len(row.inputs[SEEDS])
            if seen >= self._distances.get(key, (0, None))[0]:
                self._distances[key] = (seen, Estimate(**row.value))

    def scores(self, entrant: Entrant) -> Scores:
        """The scores of its images; none if one of them is broken."""
        key = self.drawn.scored(entrant)
        return {} if key in self._broken else self._scores.get(key, {})

    def broken(self, entrant: Entrant) -> str | None:
        """Why its images are broken; None if they are not."""
        return self._broken.get(self.drawn.scored(entrant))

    def distance(self, entrant: Entrant) -> tuple[int, Estimate] | None:
        """The number of its images and their KID to real ones; None if it was not measured."""
        return self._distances.get(self.drawn.scored(entrant))

    def latency_s(self, entrant: Entrant) -> float | None:
        """Seconds per image on the build machine, everything loaded; None if not timed."""
        placed = entrant.placement
        for inputs, seconds in self._latencies.get(self.drawn.scored(entrant), []):
            if inputs.get("guidance") == placed.guidance and inputs.get("tile") == placed.tile:
                return seconds
        return None


class Build(DrawnMixes):
    """One build, read from a ledger.

    Raises:
        StoreError: the winner's scores are missing.
    """

    def __init__(self, record: BuildRecord, rows: Iterable[Measurement], made_at: str) -> None:
        super().__init__(record, rows, made_at)
        self.record = record
        self._winner = record.entrant(record.winner)
        if not self.scores(self._winner):
            raise StoreError(
                f"the ledger holds no scores of {record.winner}, the winner of {record.name}; "
                "build it again"
            )

    @cached_property
    def points(self) -> list[Point]:
        """Every mix that was drawn: the winner, then the others by quality, the best first."""
        best = self.scores(self._winner)
        level = float(np.mean(list(best.values())))
        found = []
        for entrant in self.record.entrants:
            mine = self.scores(entrant)
            apart = paired(mine, best)
            if not len(apart):
                continue
            own, raced = mean_score(mine, self.record.prompt_of), self._raced(entrant)
            away = self._of_the_race(apart) if raced else apart.estimate(self.record.prompt_of)
            placed = Estimate(level + away.value, level + away.low, level + away.high)
            seconds = self.shown_latency_s(entrant)
            found.append(Point(entrant, placed, own, away, len(mine), len(apart), seconds, raced))
        found.sort(key=lambda point: (point.entrant is not self._winner, -point.quality.value))
        return on_fronts(found)

    def _raced(self, entrant: Entrant) -> bool:
        return entrant.outcome not in (None, SCREENED_OUT, Outcome.UNLIKE)

    def _of_the_race(self, differences: Paired) -> Estimate:
        """The race's own estimate of paired differences; a single one has no interval."""
        racers, record = sum(map(self._raced, self.record.entrants)), self.record
        alpha = (1 - record.confidence) / max(1, racers - 1)
        looks = Looks(record.looks, record.different_prompts) if record.looks else None
        mean, low, high = interval(differences.apart, alpha, looks)
        return Estimate(mean, low, high) if len(differences) > 1 else Estimate(mean, mean, mean)

    def shown_latency_s(self, entrant: Entrant) -> float | None:
        """Seconds per image: those that a limit was applied to, else those that were measured."""
        if self.record.latency_limit is not None:
            return entrant.expected_s
        return self.latency_s(entrant)

    @property
    def winner(self) -> Point:
        return self.points[0]

    @cached_property
    def costs(self) -> list[Cost]:
        """The cost of each precision of each part that two mixes can be compared for."""
        found: dict[tuple[Role, str, str], Cost] = {}
        for role, group in self._alike():
            scored = [entrant for entrant in group if self.scores(entrant)]
            if not scored:
                continue
            widest = max(scored, key=lambda entrant: entrant.parts[role].weight_bytes)
            for entrant in scored:
                cost = self._cost(role, entrant, widest)
                if cost is None:
                    continue
                key = (role, cost.candidate, cost.precision)
                known = found.get(key)
                if known is None or _worth(cost) > _worth(known):
                    found[key] = cost
        order = list(Role)
        return sorted(
            found.values(), key=lambda c: (order.index(c.role), c.candidate, -c.weight_bytes)
        )

    def _alike(self) -> Iterator[tuple[Role, list[Entrant]]]:
        """Groups of mixes that differ only in how the part of one role is stored."""
        groups: dict[tuple[Role, str, str], list[Entrant]] = {}
        for entrant in self.record.entrants:
            for role, part in entrant.parts.items():
                groups.setdefault((role, part.candidate, _others(entrant, role)), []).append(
                    entrant
                )
        for (role, _, _), group in groups.items():
            if len(group) > 1:
                yield role, group

    def _cost(self, role: Role, entrant: Entrant, widest: Entrant) -> Cost | None:
        apart = paired(self.scores(entrant), self.scores(widest))
        if entrant is widest or not len(apart):
            return None
        part, wide = entrant.parts[role], widest.parts[role]
        return Cost(
            role,
            part.candidate,
            part.precision,
            part.weight_bytes,
            wide.precision,
            wide.weight_bytes,
            apart.estimate(self.record.prompt_of),
            len(apart),
            _others(entrant, role),
        )


def _others(entrant: Entrant, role: Role) -> str:
    """The other parts of a mix, and its number of steps if mixes differ in it."""
    parts = " + ".join(str(part) for other, part in entrant.parts.items() if other is not role)
    return parts if entrant.steps is None else f"{parts} in {entrant.steps} steps"


def _worth(cost: Cost) -> tuple[int, int]:
    """Sorts measurements of the same cost by reliability: wider baseline, then more images."""
    return cost.widest_bytes, cost.pictures


def on_fronts(points: Sequence[Point]) -> list[Point]:
    """The points, with those on the Pareto fronts of the mixes that fit marked."""
    fit = [p for p in points if p.entrant.fits and p.entrant.outcome != Outcome.UNLIKE]
    timed = [point for point in fit if point.latency_s is not None]
    small = {fit[place].mix for place in _front([(p.peak_bytes, p.quality.value) for p in fit])}
    speeds = [(float(point.latency_s or 0), point.quality.value) for point in timed]
    quick = {timed[place].mix for place in _front(speeds)}
    return [
        replace(point, on_front=point.mix in small, on_latency_front=point.mix in quick)
        for point in points
    ]


def _front(points: Sequence[tuple[float, float]]) -> set[int]:
    """The indices of the (cost, quality) pairs that no other pair beats in both."""
    best, front = -np.inf, set()
    for number in sorted(range(len(points)), key=lambda n: (points[n][0], -points[n][1])):
        if points[number][1] > best:
            best = points[number][1]
            front.add(number)
    return front


def read_build(path: Path, name: str | None = None) -> Build:
    """A build of a bundle or a ledger.

    Args:
        name: name of the build, if the ledger has several; default: the last.

    Raises:
        StoreError: the ledger is missing, damaged or of another schema, or it holds no such build.
    """
    ledger = ledger_of(path)
    record, made_at = chosen(ledger, BuildRecord, BUILD, name)
    return Build(record, read_rows(ledger, (record.metric, LATENCY, DISTANCE)), made_at)


def ledger_of(path: Path) -> Path:
    """The ledger in a bundle's folder, or the file itself."""
    try:
        if not path.is_dir():
            return path
        if (path / LEDGER).is_file():
            return path / LEDGER
        old = (path / MANIFEST).is_file()
    except OSError as cause:
        raise StoreError(f"{path} cannot be read: {cause.strerror}; check the path") from cause
    why = "it was built by an older sdpack" if old else "it is not a bundle"
    raise StoreError(f"{path} holds no {LEDGER}: {why}; give a bundle or a ledger")


def kinds(path: Path) -> set[str]:
    """The kinds of records in a bundle or a ledger: BUILD, STUDY, both or neither.

    Raises:
        StoreError: the ledger is missing, damaged or of another schema.
    """
    return {row.kind for row in read_rows(ledger_of(path), (BUILD, STUDY))}


def chosen(ledger: Path, model: type[Record], kind: str, name: str | None) -> tuple[Record, str]:
    """A ledger's last record of this kind and name, and when it was written.

    Args:
        name: None takes the last record of any name.

    Raises:
        StoreError: there is none, or it cannot be read.
    """
    found, others, unread = [], set[str](), ""
    for row in read_rows(ledger, (kind,)):
        if name is not None and row.value.get("name", name) != name:
            others.add(str(row.value["name"]))
            continue
        try:
            found.append((model.model_validate(row.value), row.made_at))
        except ValidationError as cause:
            problem = cause.errors(include_url=False)[0]
            key = ".".join(str(step) for step in problem["loc"])
            unread = f"{key}: {problem['msg']}"
    if not found and unread:
        raise StoreError(
            f"{ledger}: the record of a {kind} cannot be read: {unread}; run `sdpack {kind}` again"
        )
    if found:
        return max(found, key=lambda each: each[1])
    if not others:
        raise StoreError(f"{ledger} holds no finished {kind}; run `sdpack {kind}` first")
    there = ", ".join(sorted(others))
    raise StoreError(f"{ledger} holds no {kind} named {name!r}; available: {there}")
