"""The prompts of a catalog, as a selection draws and judges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sdpack.documents.prompts import CatalogPrompt
from sdpack.domain.arrays import Float64Array
from sdpack.domain.category_weights import full_names
from sdpack.domain.estimate import Estimate, mean_estimate
from sdpack.domain.workload import WORKLOAD
from sdpack.evaluate.confidence import repeated_over_prompts
from sdpack.evaluate.pipeline_spec import EvaluationSet


@dataclass(frozen=True)
class PromptList:
    """The prompts, in the order in which they are drawn.

    Attributes:
        listed: a prompt for each image.
        different: how many of them are different; after those, the same ones come again. None if
            none comes again.
    """

    listed: Sequence[CatalogPrompt]
    different: int | None = None

    @cached_property
    def texts(self) -> list[str]:
        """The texts of the prompts."""
        return [prompt.text for prompt in self.listed]

    @cached_property
    def captions(self) -> tuple[str, ...]:
        """What judges compare the images with; empty if these are the prompts."""
        captions = [prompt.caption for prompt in self.listed]
        return () if captions == self.texts else tuple(captions)

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The category of each prompt; empty if none has one."""
        categories = tuple(prompt.category for prompt in self.listed)
        return categories if any(categories) else ()

    def weighted(self, weights: Mapping[str, float]) -> PromptList:
        """Return the prompts of which categories count by their weights; others count 1.

        A category is drawn as often as it counts, so that the mean over the prompts is the
        weighted mean over the categories. For a given number of images, this is also the choice
        with the narrowest interval if all categories vary alike (Neyman 1934). Any first prompts
        have nearly these shares.

        Raises:
            InputError: as `full_names`.
        """
        named = full_names(weights, self.categories)
        if not named:
            return self
        places: dict[str, list[int]] = {}
        for place, prompt in enumerate(self.listed):
            places.setdefault(prompt.category, []).append(place)
        wanted = {name: named.get(name, 1.0) for name in places if named.get(name, 1.0) > 0}
        scale = min(len(places[name]) / weight for name, weight in wanted.items())
        order = []
        for name, weight in wanted.items():
            count = max(1, round(scale * weight))
            chosen = places[name][:count]
            order += [((rank + 0.5) / len(chosen), place) for rank, place in enumerate(chosen)]
        return PromptList([self.listed[place] for _, place in sorted(order)])

    def repeated(self, images: int) -> PromptList:
        """Return a prompt for each of so many images; after the last one, the first comes again."""
        count = len(self.listed)
        if images <= count:
            return self
        return PromptList([self.listed[number % count] for number in range(images)], count)

    def mean(self, scores: Float64Array) -> Estimate:
        """Return the mean of the scores of the first images, float64 (N,)."""
        return mean_estimate(repeated_over_prompts(scores, self.different))

    def evaluation_set(self, height: int, width: int, most: int) -> EvaluationSet:
        """Return the set that is drawn.

        Args:
            height, width: size of the images.
            most: the most prompts that are drawn. If these are less than are encoded together, the
                set has no others: their texts would be encoded for nothing.
        """
        drawn = self.listed[:most] if most < WORKLOAD.batch else self.listed
        captions = [prompt.caption for prompt in drawn]
        return EvaluationSet([prompt.text for prompt in drawn], height, width, captions)

    def by_category(self, scores: Float64Array) -> dict[str, tuple[Estimate, int]]:
        """Return the mean of scores of the first images, and the number of images, by category.

        Args:
            scores: float64 (N,), of the first N images.
        """
        places: dict[str, list[int]] = {}
        for place, name in enumerate(self.categories[: len(scores)]):
            if name:
                places.setdefault(name, []).append(place)
        found = {}
        for name, own in places.items():
            different = sum(place < (self.different or len(scores)) for place in own)
            found[name] = mean_estimate(repeated_over_prompts(scores[own], different)), len(own)
        return found
