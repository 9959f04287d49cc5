"""What a build writes into the ledger about itself: its mixes, and which rows are whose.

Scores, latencies and distances lie in the ledger by the content of what was measured. A build's
record says which content is which mix, what each takes, and how the race ended for it; with it a
reader needs nothing but the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from sdpack.documents.document import Document
from sdpack.documents.manifest import MemoryFigures, Origin, SamplingDefaults, StoredPlacement
from sdpack.documents.profile import Profile
from sdpack.domain.placement import Role
from sdpack.errors import StoreError
from sdpack.store.artifacts import digest
from sdpack.store.ledger import Measurement

BUILD = "build"
STUDY = "study"
BEST, ENCODER_FIRST, DENOISER_FIRST = "best", "encoder first", "denoiser first"
LIKE_STABLE_DIFFUSION = "like Stable Diffusion"
"""Why a mix is in a study; "all fp16" and the like besides."""
STABLE_DIFFUSION = {"text": 0.12, "denoiser": 0.80, "decoder": 0.08}
"""Of the 1.07 billion parameters of Stable Diffusion 1.x; all text encoders count as one."""
LATENCY = "latency"
DISTANCE = "kid"
SIMILARITY, FIDELITY = "judge similarity", "fidelity to fp32"  # kinds of rows with scores
CHUNK = 16  # prompts whose scores are a row; the last of a mix may have fewer
SCREENED_OUT = "screened out"
PROMPTS, SEEDS, SIZE, JUDGE, MEASURED_ON, RECIPE = (
    "prompts",
    "seeds",
    "size",
    "judge",
    "measured_on",
    "recipe",
)
"""Keys of what a score was measured of, besides the contents of the parts by role."""


class PartFigures(Document):
    """One part of a mix.

    Attributes:
        precision: "w4", or "mixed@4.61".
        weight_bytes: while it is loaded.
        content: hash of its graph and what it is used with.
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
    """The predicted moment a mix takes the most."""

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
        recipe, judge: hashes of how it is run, and of what else its scores depend on.
        placement: in which it fits; of one that does not the fastest.
        peak: predicted, in that placement.
        size_bytes: what "smaller" means among equals.
        prompts: of the first so many it was scored.
        timed: whether one picture of its was.
        distance_prompts: over how many its distance to real pictures was measured; None for none.
        fate: see `sdpack.evaluate.rules.Fate`, or SCREENED_OUT; None where it was drawn for others
            to be compared with alone.
    """

    mix: str
    parts: Mapping[Role, PartFigures]
    recipe: str
    judge: str
    placement: StoredPlacement
    peak: PeakFigures
    fits: bool
    size_bytes: int
    prompts: NonNegativeInt
    timed: bool = False
    distance_prompts: PositiveInt | None = None
    fate: str | None = None
    lost_to: str | None = None

    @property
    def contents(self) -> dict[str, str]:
        """What its pictures depend on besides prompts, noise and size."""
        return {**{role.value: p.content for role, p in self.parts.items()}, RECIPE: self.recipe}


class ScreeningFigures(Document):
    """How many mixes were left out before the race, by scores put together from their parts'."""

    left_out: NonNegativeInt
    error: float
    checked: NonNegativeInt


class Shown(Document):
    """A row of pictures in the bundle's contact sheet; `mix` is None for one that is not a mix."""

    label: str
    mix: str | None


class DrawnRecord(Document):
    """Mixes that were drawn with the same prompts and noise, and all their scores depend on.

    Attributes:
        metric: the kind of the rows that hold scores.
        measured_on: what drew, in words; `drawn_with`, as rows have it.
        prompts: of the catalog; prompt number i starts from the noise of seed i.
        height, width: of the measured pictures.
        real: hash of the real pictures distances are to; None where there are none.
        platform, cores: of the machine, as rows of latencies have them.
        prefer: what decided among mixes that were shown equal; None in records of schema 1.
    """

    version: Literal[1, 2] = Field(2, alias="schema")
    name: str
    catalog: str
    profile: Profile
    height: PositiveInt
    width: PositiveInt
    metric: str
    measured_on: str
    drawn_with: str
    prompts: tuple[str, ...] = Field(min_length=1)
    confidence: float
    indifference: float
    prefer: str | None = None
    entrants: tuple[Entrant, ...] = Field(min_length=1)
    origins: Mapping[str, Origin]
    tools: Mapping[str, str]
    real: str | None
    machine: str
    platform: str
    cores: PositiveInt

    @property
    def size(self) -> list[int]:
        """Height and width of the measured pictures, as rows have them."""
        return [self.height, self.width]

    def entrant(self, mix: str) -> Entrant:
        """The entrant of this name.

        Raises:
            StoreError: there is none.
        """
        for found in self.entrants:
            if found.mix == mix:
                return found
        raise StoreError(f"{self.name} names {mix}, which it did not draw; run it again")

    def scored(self, entrant: Entrant) -> str:
        """One hash of what an entrant's scores depend on besides prompts and noise."""
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
        """Entrants by what their scores depend on; of two names for the same graphs both."""
        found: dict[str, list[Entrant]] = {}
        for entrant in self.entrants:
            found.setdefault(self.scored(entrant), []).append(entrant)
        return found

    def takes(self, row: Measurement) -> bool:
        """Whether a row of the ledger is one of those this record rests on.

        Others may be of the same mixes: what later builds saw of them, or other machines.

        Raises:
            KeyError, TypeError: the row is of no such kind.
        """
        same = self._by_content.get(scored_key(row.inputs), [])
        seen = max((entrant.prompts for entrant in same), default=0)
        numbers = list(row.inputs[SEEDS])
        if not numbers or max(numbers) >= len(self.prompts):
            return False
        if [self.prompts[number] for number in numbers] != list(row.inputs[PROMPTS]):
            return False
        if row.kind == LATENCY:
            here = row.inputs["machine"] == self.platform and row.inputs["cores"] == self.cores
            return bool(here and any(entrant.timed for entrant in same))
        if row.kind == DISTANCE:
            whole = numbers == list(range(len(numbers)))
            asked = any(entrant.distance_prompts == len(numbers) for entrant in same)
            return bool(whole and asked and row.inputs["real"] == self.real)
        first = numbers[0]
        return first % CHUNK == 0 and numbers == list(range(first, min(first + CHUNK, seen)))


class BuildRecord(DrawnRecord):
    """One finished build.

    Attributes:
        fitting: how many mixes fit the budget.
        winner: its mix.
        basis: what the winner's place rests on, as in a manifest; None in records of schema 1.
        shown: rows of the contact sheet, the pictures of the first `shown_prompts` prompts.
    """

    memory: MemoryFigures
    sampling: SamplingDefaults
    fitting: PositiveInt
    screened: ScreeningFigures | None
    winner: str
    basis: str | None = None
    shown: tuple[Shown, ...]
    shown_prompts: NonNegativeInt


class Run(Document):
    """A mix for one budget.

    Attributes:
        why: how it was picked; see `sdpack.pack.study`.
    """

    why: str
    mix: str
    placement: StoredPlacement
    peak_bytes: NonNegativeInt


class BudgetFigures(Document):
    """What a study found for one budget.

    Attributes:
        infeasible: why there is no mix; None where there is.
        level: the best mix, and those that raced and are level with it.
        by_encoder: of each text encoder's variants the most promising mix, at some budgets.
        broken: mixes that were picked and then drew a broken picture, and why they were picked.
    """

    budget_bytes: PositiveInt
    infeasible: str | None = None
    fitting: NonNegativeInt = 0
    runs: tuple[Run, ...] = ()
    level: tuple[str, ...] = ()
    by_encoder: tuple[Run, ...] = ()
    broken: tuple[str, ...] = ()


class StudyRecord(DrawnRecord):
    """One finished study: the same mixes asked about at several budgets."""

    budgets: tuple[BudgetFigures, ...] = Field(min_length=1)


def scored_key(inputs: Mapping[str, Any]) -> str:
    """`BuildRecord.scored` of the inputs of a row."""
    names = {role.value for role in Role} | {RECIPE, SIZE, JUDGE, MEASURED_ON}
    return digest({name: inputs[name] for name in inputs if name in names})
