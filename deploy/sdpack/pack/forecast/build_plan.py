"""The plan of a build: sizes, downloads, images and times, predicted before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision, weight_bits
from sdpack.pack.candidates import Candidates
from sdpack.pack.forecast.candidate_sizes import CandidateSize, CandidateSizes
from sdpack.pack.forecast.image_count import ImageCount, image_count, preselected_count
from sdpack.pack.forecast.intervals import Interval, total
from sdpack.pack.forecast.judge_costs import JudgeCost, judge_costs
from sdpack.pack.forecast.smallest import LowerBound
from sdpack.pack.forecast.speed import machine_speed
from sdpack.pack.forecast.stage_costs import Speeds, StageCosts
from sdpack.pack.forecast.stages import Stage, StageTimes
from sdpack.pack.planning.mix import Mix, by_part_set, mixes, placements
from sdpack.pack.request import BuildRequest
from sdpack.pack.selection.prompt_list import PromptList
from sdpack.store.ledger import Ledger

GRAPH_BYTES = 4  # per parameter of an fp32 graph
AFTER_PRESELECTION = (Stage.CALIBRATE, Stage.SENSITIVITY, Stage.ROUND, Stage.ENGINES)
OTHER_FILES = 1.5  # upper bound of all files of a build, as a multiple of its graphs


@dataclass(frozen=True)
class PartShare:
    """A part of a mix and its share of the parameters.

    Attributes:
        share: its share of the mix's parameters, 0 to 1.
        bytes_by_precision: size of its weights in the widest and in the narrowest precision.
    """

    role: Role
    name: str
    parameters: int
    share: float
    bytes_by_precision: Mapping[Precision, int]


@dataclass(frozen=True)
class BuildPlan:
    """The predicted cost of a build.

    Attributes:
        mixes: "smallest" and "largest" by parameters, and "usual", the first of the catalog.
        sizes: the size of every candidate.
        judges: the cost of every judge; empty if images are compared with fp32.
        uniform_mixes: number of mixes of candidates and precisions.
        placements: number of placements of each mix.
        smallest: the mix with the lowest lower bound of its peak memory.
        smallest_bytes: that lower bound.
        images: number of images the selection draws.
        disk: bytes the cache will need.
        seconds: duration of each stage.
        is_refined: whether earlier builds on this machine refined the durations.
    """

    mixes: Mapping[str, tuple[PartShare, ...]]
    sizes: tuple[CandidateSize, ...]
    judges: tuple[JudgeCost, ...]
    uniform_mixes: int
    placements: int
    smallest: str
    smallest_bytes: int
    images: ImageCount
    disk: Interval
    seconds: Mapping[Stage, Interval]
    is_refined: bool

    @property
    def fetch_bytes(self) -> int:
        """Total size of the downloads."""
        of_judges = sum(judge.fetch_bytes or 0 for judge in self.judges)
        return sum(size.fetch_bytes for size in self.sizes) + of_judges

    @property
    def all_seconds(self) -> Interval:
        """Duration of the whole build."""
        return total(self.seconds.values())


@dataclass(frozen=True)
class Planning:
    """Predicts the cost of building a request."""

    candidates: Candidates
    ledger: Ledger

    def plan(self) -> BuildPlan:
        """Return the plan, without fetching, exporting or drawing anything.

        Raises:
            InfeasibleError: the parameters alone show that no mix fits the budget.
            CatalogError: the number of parameters of a candidate is unknown.
        """
        request, sizes = self._request, self._sizes
        parameters = {key: size.parameters for key, size in self._by_name.items()}
        smallest = LowerBound(request, parameters).smallest()
        seconds = self.seconds()
        times = StageTimes.read(self.ledger, request.drawn_on)
        return BuildPlan(
            self._shares(),
            tuple(sizes),
            tuple(self._judges()),
            len(self._mixes),
            len(placements(request.profile, max(request.sizes[0]) // 8)),
            str(smallest.mix),
            smallest.peak.bytes,
            self._images,
            self._disk(),
            {stage: times.refined(stage, each) for stage, each in seconds.items()},
            bool(times.ratios),
        )

    def _judges(self) -> Iterator[JudgeCost]:
        candidates, catalog = self.candidates, self._request.catalog
        return judge_costs(catalog.quality, candidates.is_here, candidates.folder)

    def seconds(self) -> dict[Stage, Interval]:
        """The predicted duration of each stage, before refinement.

        Where sets of parts are left out first, the stages after that may have as little to do as
        for one set, and as much as for all.
        """
        every = self._costs.seconds()
        lows = [costs.seconds() for costs in self._costs_of_sets]
        for stage in AFTER_PRESELECTION if lows else ():
            every[stage] = Interval(min(low[stage].low for low in lows), every[stage].high)
        return every

    def units(self) -> dict[Stage, float]:
        """The number of graphs, engines or images that each stage is likely to process."""
        every = self._costs.units()
        lows = [costs.units() for costs in self._costs_of_sets]
        for stage in AFTER_PRESELECTION if lows else ():
            fewest = min(low[stage] for low in lows)
            every[stage] = Interval(fewest, max(fewest, every[stage])).middle
        return every

    @cached_property
    def _costs(self) -> StageCosts:
        return self._costs_of(self._mixes)

    @cached_property
    def _costs_of_sets(self) -> list[StageCosts]:
        """The costs of each set of parts alone; none if no set can be left out."""
        by_set = by_part_set(self._mixes)
        if not self._is_judged or len(by_set) < 2:
            return []
        return [self._costs_of(of_set) for of_set in by_set.values()]

    def _costs_of(self, mixes: Sequence[Mix]) -> StageCosts:
        images, guided = self._images.all, self._guided
        return StageCosts(self._request, self._sizes, mixes, images, self._speeds, guided)

    @cached_property
    def _guided(self) -> frozenset[str]:
        """The denoisers that run twice in each step; those not here are judged by their scale."""
        return frozenset(filter(self._is_guided, self._request.catalog.denoisers))

    def _is_guided(self, denoiser: str) -> bool:
        candidates, sampling = self.candidates, self._request.sampling_of(denoiser)
        if candidates.is_here(self._request.catalog.denoisers[denoiser].source):
            return candidates.conditioning(denoiser).guided(sampling.guidance_scale)
        return sampling.guidance_scale > 1 and not sampling.distilled

    @cached_property
    def _speeds(self) -> Speeds:
        return Speeds(
            machine_speed(self.ledger), machine_speed(self.ledger, self._request.drawn_on)
        )

    @property
    def _is_judged(self) -> bool:
        """Whether sets of parts can be compared, so that some may be left out."""
        catalog = self._request.catalog
        return catalog.quality.judge is not None

    @property
    def _request(self) -> BuildRequest:
        return self.candidates.request

    @cached_property
    def _images(self) -> ImageCount:
        request = self._request
        count = preselected_count if self._is_judged else image_count
        return count(self._mixes, request.rules, request.is_large, self._prompts)

    @cached_property
    def _sizes(self) -> list[CandidateSize]:
        return list(CandidateSizes(self.candidates).every())

    @cached_property
    def _mixes(self) -> list[Mix]:
        request = self._request
        return list(mixes(request.catalog, request.precisions, request.step_choices))

    @property
    def _prompts(self) -> int:
        request = self._request
        quality = request.catalog.quality
        listed = PromptList(request.located.prompt_list(quality.prompts))
        return len(listed.weighted(request.weights).listed)

    def _parameters(self, mix: Mix) -> int:
        return sum(self._by_name[v.role.group, v.candidate].parameters for v in mix.variants)

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], CandidateSize]:
        return {(size.role.group, size.name): size for size in self._sizes}

    def _shares(self) -> dict[str, tuple[PartShare, ...]]:
        chosen = {
            "smallest": min(self._mixes, key=self._parameters),
            "usual": self._mixes[0],
            "largest": max(self._mixes, key=self._parameters),
        }
        return {label: tuple(self._parts(mix)) for label, mix in chosen.items()}

    def _parts(self, mix: Mix) -> Iterable[PartShare]:
        whole, precisions = self._parameters(mix), self._ends()
        for variant in mix.variants:
            parameters = self._by_name[variant.role.group, variant.candidate].parameters
            sizes = {p: parameters * weight_bits(p) // 8 for p in precisions}
            yield PartShare(variant.role, variant.candidate, parameters, parameters / whole, sizes)

    def _ends(self) -> Sequence[Precision]:
        """The widest and the narrowest precision."""
        precisions = sorted(self._request.precisions, key=weight_bits)
        return (precisions[-1], precisions[0])

    def _disk(self) -> Interval:
        bits = sum(weight_bits(p) for p in self._request.precisions)
        variants = {
            (v.role.value, v.candidate, v.partner) for mix in self._mixes for v in mix.variants
        }
        parameters = sum(
            self._by_name[Role(role).group, name].parameters for role, name, _ in variants
        )
        graphs = float(parameters * (GRAPH_BYTES + bits / 8))
        fetched = float(sum(size.fetch_bytes for size in self._sizes))
        return Interval(graphs + fetched, graphs * OTHER_FILES + fetched)
