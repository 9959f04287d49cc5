"""Why a bundle's mix was chosen: its measurements, and those of the other mixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field, NonNegativeInt, PositiveInt

from sdpack.documents.document import Document, formerly
from sdpack.domain.licences import CommercialUse, terms
from sdpack.domain.placement import Role


class Estimated(Document):
    """A mean over a number of images and its 95 % interval."""

    value: float
    low: float
    high: float
    pictures: PositiveInt


class StandingFigures(Document):
    """The result of one mix in the race.

    Attributes:
        steps: number of denoising steps; None if the catalog offers only one for its denoiser.
        peak_bytes: predicted peak in `placement`.
        size_bytes: the size that decides between equal mixes: the peak in the fastest placement,
            or the size of the files if peaks are measured.
        weights: bytes of each part's weights.
        outcome: compared with `lost_to`: "won", "open", "same", "no better" or "worse";
            "disputed" if another judge scores it better than the winner;
            "broken" if it drew a broken image, or "unlike fp32" if its images break the limits of
            `AppearanceFigures`. Bundles of schema 1 have "tied" instead of "open".
        quality: mean score of its images, and its 95 % interval.
        difference, low, high: its score minus the winner's, and the interval that decided the race;
            None means unbounded.
        latency_s: seconds per image on the machine that built the bundle; None if not measured.
        expected_s: seconds per image as the sum of its parts, measured or predicted as
            `Evidence.latency_limit` says; None without a limit.
        categories: mean score over the prompts of each category that it drew; empty if the prompts
            have no categories.
    """

    mix: str
    steps: PositiveInt | None = None
    placement: str
    peak_bytes: int
    size_bytes: int
    weights: Mapping[Role, int]
    outcome: str = formerly("outcome", "fate")
    lost_to: str
    quality: Estimated
    difference: float
    low: float | None
    high: float | None
    latency_s: float | None
    expected_s: float | None = None
    categories: Mapping[str, Estimated] = {}


class LatencyLimit(Document):
    """The limit on the time of an image.

    Attributes:
        max_seconds: the most seconds that an image may take, without the first start.
        is_measured: whether the times that it was applied to are measured; otherwise predicted.
        where: the machine that the times are of, in words.
        left_out: number of mixes that fit the budget but take longer.
        whole_s: measured seconds of a whole image by the winner, plus those to load its parts if
            they are loaded for each image; None where times are predicted.
    """

    max_seconds: float
    is_measured: bool
    where: str
    left_out: NonNegativeInt
    whole_s: float | None = None

    @property
    def how(self) -> str:
        """ "measured on ..." or "predicted for ..."."""
        return f"measured on {self.where}" if self.is_measured else f"predicted for {self.where}"

    def words(self, parts_s: float) -> str:
        """The time of the winner, and the limit, in a sentence.

        Args:
            parts_s: seconds per image from the times of its parts.
        """
        time = f"{parts_s:.3g} s, the sum of its parts"
        if self.whole_s is not None:
            time += f", and {self.whole_s:.3g} s as a whole"
        return (
            f"An image takes {time} ({self.how}); the limit is {self.max_seconds:g} s, and "
            f"{self.left_out:,} mixes that fit the memory take longer."
        )


class TimeLimit(Document):
    """The limit on the time of a build.

    Attributes:
        seconds: the limit.
        is_complete: whether the build tried everything that a build without a limit tries.
        left_out: what it left out, in words.
    """

    seconds: float
    is_complete: bool
    left_out: tuple[str, ...] = ()


class BeatenParts(Document):
    """A set of parts whose images even in fp32 are worse than the winner's.

    Attributes:
        parts: the names of the candidates, and the number of steps if there are several.
        is_broken: whether one of its images is broken; its figures then mean nothing.
        quality: mean score of its images in fp32, and its 95 % interval.
        difference, low, high: its score minus the winner's over the images both drew, and the
            interval of that; None means unbounded.
    """

    parts: str
    is_broken: bool = False
    quality: Estimated
    difference: float
    low: float | None
    high: float | None

    @property
    def is_certain(self) -> bool:
        """Whether the whole interval of the difference is below zero."""
        return self.high is not None and self.high < 0


class PreselectionFigures(Document):
    """The comparison of sets of parts in fp32, before any precision was made of them.

    Attributes:
        sets: number of sets of parts that may fit.
        beaten: those that were left out, the best first.
    """

    sets: PositiveInt
    beaten: tuple[BeatenParts, ...]

    @property
    def scope(self) -> str:
        """Which mixes were compared, to follow their number; empty if no set was left out."""
        if not self.beaten:
            return ""
        return f", in {self.sets - len(self.beaten)} of {self.sets} sets of parts"

    def words(self) -> str:
        """What was left out, in a sentence; empty if nothing was."""
        if not self.beaten:
            return ""
        working = [each for each in self.beaten if not each.is_broken]
        why = []
        if working:
            best, certain = working[0], sum(each.is_certain for each in working)
            why.append(
                f"the images of {len(working)} in fp32 are worse than the winner's (beyond chance "
                f"for {certain} of them, otherwise in the mean over all prompts), the nearest, "
                f"{best.parts}, by {-best.difference:.3f} over {best.quality.pictures} images"
            )
        if len(working) < len(self.beaten):
            why.append(f"{len(self.beaten) - len(working)} draw broken images in fp32")
        return (
            f"{len(self.beaten)} of {self.sets} sets of parts were left out: {' and '.join(why)}."
        )


def compared(latency_limit: LatencyLimit | None, time_limit: TimeLimit | None) -> str:
    """What the mixes of a race have in common: they "fit", or as limits narrow that."""
    if time_limit is not None and not time_limit.is_complete:
        return "were tried"
    return "fit" if latency_limit is None else "fit and are fast enough"


class SelectionRule(Document):
    """The rule that chose the winner, and the basis of its win.

    Attributes:
        prefer: preference among mixes shown equal: "quality", "speed" or "memory".
        basis: "best" (no mix had a better mean), "shown equal" (to every mix with a better mean),
            or "open" (a comparison with a better mean was not decided; `prefer` allows that).
        confidence: joint confidence of the race's intervals, over all rounds and all mixes.
        indifference: largest difference in score that counts as none.
        prompts: the most images that any mix was scored on, each of another prompt or from other
            noise.
        different_prompts: how many prompts these show; None in older manifests.
        weights: how much categories of prompts counted in the score; those not named counted 1.
    """

    prefer: str
    basis: str
    confidence: float
    indifference: float
    prompts: PositiveInt
    different_prompts: PositiveInt | None = None
    weights: Mapping[str, float] = {}


class DisputedMix(Document):
    """A mix that another judge scores better than the winner, beyond chance.

    Attributes:
        difference, low, high: that judge's score of it minus that of the winner, and the interval
            of that at the race's confidence.
    """

    mix: str
    difference: float
    low: float
    high: float


class OtherJudgement(Document):
    """What another judge than the one that decided says about the winner.

    Attributes:
        judge: its name in the catalog.
        licence: as the catalog states it.
        quality: its mean score of the winner's images, and the 95 % interval.
        mixes: number of mixes that it compared with the winner.
        agreement: rank correlation (Spearman) with the first judge over the mixes that stayed in
            the race longest; None if these are too few.
        disputed: the mixes that it scores better than the winner.
    """

    judge: str
    licence: str = ""
    quality: Estimated
    mixes: NonNegativeInt
    agreement: float | None
    disputed: tuple[DisputedMix, ...] = ()

    def words(self) -> str:
        """Its judgement, in a sentence or two."""
        own = self.quality
        start = (
            f"Another judge, {self.judge}, scores the winner {own.value:.3f} [{own.low:.3f}, "
            f"{own.high:.3f}] over {own.pictures} images"
        )
        if self.agreement is not None:
            start += f", and ranks the mixes with a correlation of {self.agreement:.2f}"
        if terms(self.licence).use is CommercialUse.FORBIDDEN:
            start += f" (its licence, {self.licence}, {terms(self.licence).words})"
        if not self.disputed:
            return f"{start}. It finds none of {self.mixes} other mixes better, beyond chance."
        best = max(self.disputed, key=lambda mix: mix.difference)
        return (
            f"{start}. It finds {len(self.disputed)} of {self.mixes} other mixes better: most of "
            f"all {best.mix}, by {best.difference:.3f} [{best.low:.3f}, {best.high:.3f}]. The "
            "judges disagree, so that these count as tied with the winner."
        )


def judge_words(judgements: Sequence[OtherJudgement], left_out: Mapping[str, str]) -> list[str]:
    """What other judges say, in sentences; also which did not work."""
    said = [judgement.words() for judgement in judgements]
    return [*said, *(f"The judge {name} was left out: {why}." for name, why in left_out.items())]


class AppearanceFigures(Document):
    """The look of the winner's images, compared with those of the same parts in fp32.

    Attributes:
        similarity: mean structural similarity.
        colour_offset: the largest mean difference of a colour channel, in levels of 255, less what
            chance explains.
        sharpness: ratio of the contrast between neighbouring pixels.
        pictures: number of images that were compared.
        least_similarity, most_colour_offset, least_sharpness, most_sharpness: limits outside of
            which no mix may win.
    """

    similarity: float
    colour_offset: float
    sharpness: float
    pictures: PositiveInt
    least_similarity: float
    most_colour_offset: float
    least_sharpness: float
    most_sharpness: float

    def words(self) -> str:
        """The comparison, in a sentence."""
        return (
            f"Compared with the same parts in fp32 over {self.pictures} images, its images have a "
            f"structural similarity of {self.similarity:.2f} (at least {self.least_similarity:g} "
            f"is required), their colour is off by {self.colour_offset:.1f} levels of 255 (at "
            f"most {self.most_colour_offset:g}), and they are {self.sharpness:.2f} times as sharp "
            f"({self.least_sharpness:g} to {self.most_sharpness:g})."
        )


def weight_words(weights: Mapping[str, float]) -> list[str]:
    """How much categories counted, in a sentence; empty if all counted alike."""
    if not weights:
        return []
    named = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
    return [f"Categories of prompts counted by weights (--weigh): {named}; others 1."]


class Screening(Document):
    """The mixes left out before the race because of scores estimated from their parts.

    Attributes:
        error: largest difference of an estimated mean from the measured one, over `checked` mixes.
        predicted: estimated mean of each mix that was left out.
    """

    error: float
    checked: int
    predicted: Mapping[str, float] = formerly("predicted", "foretold")


class Evidence(Document):
    """The evidence for a bundle's mix.

    Attributes:
        metric: name of the score.
        measured_on: machine and runtime that drew the images.
        kid: kernel inception distance to the real images; None if not measured.
        mixes, pictures: number of mixes that were compared (`compared`), and of images drawn.
        rule: the rule that chose the mix; None in bundles of schema 1.
        latency_limit: the limit on the time of an image; None without one.
        time_limit: the limit on the time of the build; None without one.
        preselection: the sets of parts that were left out first; None if none were compared.
        other_judges: what other judges say about the winner.
        judges_left_out: other judges that did not work, and why.
        appearance: the look of the winner's images; None if it was not compared with fp32.
        tiled_difference: largest difference, in levels of 255, between an image decoded in tiles
            and the same image decoded whole; None without tiles.
        standings: results of all mixes that raced, the winner's first.
    """

    metric: str
    measured_on: str
    quality: Estimated
    kid: Estimated | None
    latency_limit: LatencyLimit | None = None
    time_limit: TimeLimit | None = None
    preselection: PreselectionFigures | None = None
    other_judges: tuple[OtherJudgement, ...] = ()
    judges_left_out: Mapping[str, str] = {}
    appearance: AppearanceFigures | None = None
    tiled_difference: NonNegativeInt | None = None
    mixes: int
    pictures: int
    rule: SelectionRule | None = None
    screening: Screening | None = None
    standings: tuple[StandingFigures, ...] = Field(min_length=1)

    @property
    def compared(self) -> str:
        """What the mixes have in common (see the function `compared`)."""
        scope = self.preselection.scope if self.preselection is not None else ""
        return compared(self.latency_limit, self.time_limit) + scope

    @property
    def winner(self) -> StandingFigures:
        return self.standings[0]
