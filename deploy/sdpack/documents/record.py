"""The record that a build or study writes into the ledger: its mixes, and their rows.

The ledger keys scores, latencies and distances by the content of the measured parts. A record maps
this content to mixes, and adds the memory use and race result of each, so that a reader needs only
the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from sdpack.documents.document import Document, formerly
from sdpack.documents.evidence import (
    AppearanceFigures,
    LatencyLimit,
    OtherJudgement,
    PreselectionFigures,
    TimeLimit,
)
from sdpack.documents.manifest import MemoryFigures, SamplingDefaults, StoredPlacement
from sdpack.documents.origins import NOT_RECORDED, CandidateOrigin, bridge_name, licensed
from sdpack.documents.profile import Profile
from sdpack.domain.licences import LicensedPart
from sdpack.domain.placement import Role
from sdpack.domain.workload import WORKLOAD
from sdpack.errors import StoreError
from sdpack.store.artifacts import digest
from sdpack.store.ledger import Measurement

BUILD = "build"
STUDY = "study"
BEST, ENCODER_FIRST, DENOISER_FIRST = "best", "encoder first", "denoiser first"
LIKE_STABLE_DIFFUSION = "like Stable Diffusion"
"""Reasons why a mix is in a study; others are "all fp16" and the like."""
STABLE_DIFFUSION = {"text": 0.12, "denoiser": 0.80, "decoder": 0.08}
"""Shares of Stable Diffusion 1.x's 1.07 billion parameters; text encoders are counted together."""
LATENCY = "latency"
DISTANCE = "kid"
SIMILARITY, FIDELITY = "judge similarity", "fidelity to fp32"  # kinds of rows with scores
SCREENED_OUT = "screened out"
PROMPTS, SEEDS, SIZE, JUDGE, MEASURED_ON, RECIPE = (
    "prompts",
    "seeds",
    "size",
    "judge",
    "measured_on",
    "recipe",
)
"""Keys in the inputs of a score's row; the other keys are roles, with their parts' contents."""
CAPTIONS = "captions"  # one more key, if the judge compared images with other captions


class PartFigures(Document):
    """One part of a mix.

    Attributes:
        precision: "w4", or "mixed@4.61".
        weight_bytes: size of the loaded weights.
        content: hash of its graph and the files used with it.
    """

    candidate: str
    precision: str
    parameters: NonNegativeInt
    weight_bytes: NonNegativeInt
    content: str

    def __str__(self) -> str:
        return f"{self.candidate}/{self.precision}"

    @property
    def base_precision(self) -> str:
        """The precision without its bits per weight: "mixed" of "mixed@4.61"."""
        return self.precision.split("@")[0]


class PeakFigures(Document):
    """The predicted peak of a mix: the bytes in use at that moment."""

    weights: Mapping[Role, NonNegativeInt]
    activation_bytes: NonNegativeInt
    activation_role: Role
    fixed_bytes: NonNegativeInt

    @property
    def bytes(self) -> int:
        return sum(self.weights.values()) + self.activation_bytes + self.fixed_bytes


class Entrant(Document):
    """A mix that was drawn.

    Attributes:
        steps: number of denoising steps; None if the catalog offers only one for its denoiser.
        recipe: hash of its sampling settings.
        judge: hash of everything else that its scores depend on.
        placement: the placement in which it fits; the fastest if it fits in none.
        peak: predicted peak in that placement.
        size_bytes: the size that decides between equal mixes.
        prompts: number of prompts it was scored on, from the first.
        timed: whether its latency was measured.
        expected_s: as in `StandingFigures`.
        distance_prompts: number of prompts for its distance to the real images; None if not
            measured.
        outcome: see `sdpack.evaluate.rules.Outcome`, or SCREENED_OUT; None for a mix that only
            serves as a reference.
        lost_to: name of the mix that `outcome` compares it with.
    """

    mix: str
    parts: Mapping[Role, PartFigures]
    steps: PositiveInt | None = None
    recipe: str
    judge: str
    placement: StoredPlacement
    peak: PeakFigures
    fits: bool
    size_bytes: int
    prompts: NonNegativeInt
    timed: bool = False
    expected_s: float | None = None
    distance_prompts: PositiveInt | None = None
    outcome: str | None = formerly("outcome", "fate", None)
    lost_to: str | None = None

    @property
    def contents(self) -> dict[str, str]:
        """Hashes that determine its images, given prompts, noise and size."""
        return {**{role.value: p.content for role, p in self.parts.items()}, RECIPE: self.recipe}


class ScreeningFigures(Document):
    """The screening: mixes left out before the race, and the error of the estimated scores."""

    left_out: NonNegativeInt
    error: float
    checked: NonNegativeInt


class Shown(Document):
    """A row of images in the bundle's contact sheet; `mix` is None if no mix drew them."""

    label: str
    mix: str | None


class DrawnRecord(Document):
    """Mixes that were drawn with the same prompts and noise, and the settings of their scores.

    Attributes:
        height, width: size of the measured images, in pixels.
        metric: kind of the rows with scores.
        measured_on: machine and runtime that drew, in words.
        drawn_with: the same, as in the rows' inputs.
        prompts: the catalog's prompts; prompt number i starts from the noise of seed i.
        captions: what the judge compared the images with, in the same order; empty if these were
            the prompts.
        categories: what each prompt tests, in the same order; empty if the prompts have none.
        different_prompts: after so many, the same prompts come again, from other noise; None if
            none does.
        looks: the numbers of images after which the race looked at its intervals; empty in older
            records, whose intervals hold at every number of prompts.
        weights: how much categories of prompts counted in the score; those not named counted 1.
        prefer: preference among mixes shown equal; None in records of schema 1.
        origins: where candidates and bridges come from, by role and name.
        real: hash of the real images; None without them.
        platform, cores: the machine, as in the inputs of latency rows.
    """

    version: Literal[1, 2, 3] = Field(3, alias="schema")
    name: str
    catalog: str
    profile: Profile
    height: PositiveInt
    width: PositiveInt
    metric: str
    measured_on: str
    drawn_with: str
    prompts: tuple[str, ...] = Field(min_length=1)
    captions: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    confidence: float
    different_prompts: PositiveInt | None = None
    looks: tuple[PositiveInt, ...] = ()
    indifference: float
    weights: Mapping[str, float] = {}
    prefer: str | None = None
    entrants: tuple[Entrant, ...] = Field(min_length=1)
    origins: Mapping[str, CandidateOrigin]
    tools: Mapping[str, str]
    real: str | None
    machine: str
    platform: str
    cores: PositiveInt

    @property
    def size(self) -> list[int]:
        """Height and width of the measured images, as in the rows' inputs."""
        return [self.height, self.width]

    def entrant(self, mix: str) -> Entrant:
        """Return the entrant with this name.

        Raises:
            StoreError: there is none.
        """
        for entrant in self.entrants:
            if entrant.mix == mix:
                return entrant
        raise StoreError(f"{self.name} names {mix}, which it did not draw; run it again")

    def licensed_parts(self, entrant: Entrant) -> list[LicensedPart]:
        """Everything of a mix with a licence of its own: parts, bridges and LoRAs."""
        found: list[LicensedPart] = []
        for role in (role for role in Role if role in entrant.parts):
            part = entrant.parts[role]
            name = f"{role.words} {part.candidate}"
            origin = self.origins.get(name)
            licence, loras = (
                (NOT_RECORDED, None)
                if origin is None
                else (
                    origin.licence,
                    origin.loras,
                )
            )
            found += licensed(name, licence, () if role is Role.DECODER else loras)
            bridge = bridge_name(name, entrant.parts[Role.DENOISER].candidate)
            if bridge in self.origins:
                found.append(LicensedPart(bridge, self.origins[bridge].licence))
        return found

    def scored(self, entrant: Entrant) -> str:
        """Return one hash of all inputs of an entrant's scores but prompts and noise."""
        return scored_key(
            {
                **entrant.contents,
                SIZE: self.size,
                JUDGE: entrant.judge,
                MEASURED_ON: self.drawn_with,
            }
        )

    @cached_property
    def _by_content(self) -> dict[str, list[Entrant]]:
        """Entrants by `scored`; two mixes with the same graphs share a key."""
        by_content: dict[str, list[Entrant]] = {}
        for entrant in self.entrants:
            by_content.setdefault(self.scored(entrant), []).append(entrant)
        return by_content

    def takes(self, row: Measurement) -> bool:
        """Whether a row of the ledger belongs to this record.

        Other rows may describe the same mixes: those of later builds, or of other machines.

        Raises:
            KeyError, TypeError: the row is not a score, latency or distance.
        """
        same = self._by_content.get(scored_key(row.inputs), [])
        scored_prompts = max((entrant.prompts for entrant in same), default=0)
        numbers = list(row.inputs[SEEDS])
        if not numbers or max(numbers) >= len(self.prompts):
            return False
        if [self.prompts[number] for number in numbers] != list(row.inputs[PROMPTS]):
            return False
        if row.kind == LATENCY:
            machine = (row.inputs["machine"], row.inputs["cores"])
            timed = any(entrant.timed for entrant in same)
            return machine == (self.platform, self.cores) and timed
        if row.kind == DISTANCE:
            from_first = numbers == list(range(len(numbers)))
            measured = any(entrant.distance_prompts == len(numbers) for entrant in same)
            return bool(from_first and measured and row.inputs["real"] == self.real)
        captions = [self.caption(number) for number in numbers]
        if list(row.inputs.get(CAPTIONS, row.inputs[PROMPTS])) != captions:
            return False
        return any(
            numbers[0] % size == 0
            and numbers == list(range(numbers[0], min(numbers[0] + size, scored_prompts)))
            for size in self._chunk_sizes
        )

    def prompt_of(self, number: int) -> int:
        """Return the number of an image's prompt: that of the first image that shows it."""
        return number % (self.different_prompts or len(self.prompts))

    @property
    def prompt_words(self) -> str:
        """The prompts and the noise of the images, in words."""
        every = f"{len(self.prompts)}, prompt i from the noise of seed i, counted from 0"
        if self.different_prompts is None:
            return every
        return (
            f"{self.different_prompts}, image i of prompt i modulo {self.different_prompts} from "
            "the noise of seed i, counted from 0"
        )

    def caption(self, number: int) -> str:
        """Return what the judge compared the image of a prompt with."""
        return self.captions[number] if self.captions else self.prompts[number]

    @property
    def _chunk_sizes(self) -> set[int]:
        """The numbers of prompts of a row of scores; the last row of a mix may have fewer.

        Rows of large images have one prompt; in older bundles, as many as those of others.
        """
        return {WORKLOAD.chunk, WORKLOAD.chunk_of(*self.size)}


class BuildRecord(DrawnRecord):
    """One finished build.

    Attributes:
        fitting: number of mixes that were compared; see `sdpack.documents.evidence.compared`.
        winner: name of the winning mix.
        basis: as in `SelectionRule`; None in records of schema 1.
        latency_limit: the limit on the time of an image; None without one.
        time_limit: the limit on the time of the build; None without one.
        preselection: the sets of parts that were left out first; None if none were compared.
        other_judges: what other judges say about the winner.
        judges_left_out: other judges that did not work, and why.
        appearance: the look of the winner's images; None if it was not compared with fp32.
        shown: rows of the contact sheet, with images of the first `shown_prompts` prompts.
    """

    memory: MemoryFigures
    sampling: SamplingDefaults
    fitting: PositiveInt
    screened: ScreeningFigures | None
    winner: str
    basis: str | None = None
    latency_limit: LatencyLimit | None = None
    time_limit: TimeLimit | None = None
    preselection: PreselectionFigures | None = None
    other_judges: tuple[OtherJudgement, ...] = ()
    judges_left_out: Mapping[str, str] = {}
    appearance: AppearanceFigures | None = None
    shown: tuple[Shown, ...]
    shown_prompts: NonNegativeInt


class Run(Document):
    """A mix for one budget.

    Attributes:
        why: reason for picking it; see `sdpack.pack.study`.
    """

    why: str
    mix: str
    placement: StoredPlacement
    peak_bytes: NonNegativeInt


class BudgetFigures(Document):
    """A study's results for one budget.

    Attributes:
        infeasible: why no mix fits; None if one does.
        fitting: number of mixes that fit.
        level: the best mix, and the mixes of the race that are level with it.
        by_encoder: the most promising mix with each text encoder variant, at some budgets.
        broken: mixes that were picked and then drew a broken image, and why they were picked.
    """

    budget_bytes: PositiveInt
    infeasible: str | None = None
    fitting: NonNegativeInt = 0
    runs: tuple[Run, ...] = ()
    level: tuple[str, ...] = ()
    by_encoder: tuple[Run, ...] = ()
    broken: tuple[str, ...] = ()


class StudyRecord(DrawnRecord):
    """One finished study: the best of the same mixes at several budgets.

    Attributes:
        latency_limit: the limit on the time of an image, as it was applied at the largest budget;
            None without one.
    """

    latency_limit: LatencyLimit | None = None
    budgets: tuple[BudgetFigures, ...] = Field(min_length=1)


def scored_key(inputs: Mapping[str, Any]) -> str:
    """Return `DrawnRecord.scored` for the inputs of a row."""
    names = {role.value for role in Role} | {RECIPE, SIZE, JUDGE, MEASURED_ON}
    return digest({name: inputs[name] for name in inputs if name in names})
