"""Draws and scores many mixes, and does each shared part of the work once.

Mixes with the same text encoders share their embeddings, and mixes with the same denoiser as well
share its latents. The store keeps both, and large pictures too; the ledger keeps the scores. A
killed run therefore resumes where it stopped, and a second run draws nothing.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sdpack.documents.conditioning import Conditioning
from sdpack.domain.arrays import Float32Array, Float64Array
from sdpack.domain.finite import broken_words
from sdpack.domain.placement import Placement, Role
from sdpack.domain.workload import WORKLOAD
from sdpack.errors import BrokenPictureError, EngineError
from sdpack.evaluate.open_parts import OpenParts
from sdpack.evaluate.pipeline_spec import EvaluationSet, LoadablePart, PipelineSpec
from sdpack.evaluate.rules import BROKEN_SCORE
from sdpack.progress import Step, unheard
from sdpack.runtime.pipeline import Pictures, Pipeline, to_pictures
from sdpack.runtime.text_embeddings import TextEmbeddings, encode_text, join_embeddings
from sdpack.store.artifacts import Store
from sdpack.store.ledger import Ledger

EMBEDDINGS_FILE, LATENTS_FILE, PICTURES_FILE = "said.npz", "latents.npy", "pictures.npy"


class Scorer(Protocol):
    """Scores pictures: larger is better, and 1 is the most.

    Attributes:
        metric: its name in the evidence and in the ledger.
        reads_captions: whether scores depend on the captions of the images.
    """

    metric: str
    reads_captions: bool

    def content(self, mix: PipelineSpec) -> str:
        """One hash of everything a mix's scores depend on, except its images and prompts."""
        ...

    def score(
        self,
        mix: PipelineSpec,
        pictures: Pictures,
        numbers: Sequence[int],
        runner: EvaluationRunner,
    ) -> Sequence[float]:
        """The score of each of a mix's pictures.

        Args:
            pictures: uint8 (N, H, W, 3).
            numbers: of their prompts, N of them.

        Raises:
            BrokenPictureError: the pictures they are compared with are broken.
        """
        ...


class EvaluationRunner:
    """Draws and scores mixes on one set of prompts.

    Args:
        measured_on: the runtime that draws, as the evidence names it.

    Attributes:
        drawn: how many pictures were scored so far.
    """

    def __init__(
        self,
        task: EvaluationSet,
        scorer: Scorer,
        store: Store,
        ledger: Ledger,
        measured_on: str,
    ) -> None:
        self.task = task
        self.drawn = 0
        self._scorer = scorer
        self._batch = WORKLOAD.batch_of(task.height, task.width)
        self._store = store
        self._ledger = ledger
        self._measured_on = measured_on
        self._parts = OpenParts()

    def on(self, task: EvaluationSet) -> EvaluationRunner:
        """A runner for another set of prompts, which shares the open parts."""
        return self._like(task, self._scorer)

    def judged_by(self, scorer: Scorer) -> EvaluationRunner:
        """A runner that scores the same images otherwise, and shares the open parts."""
        return self._like(self.task, scorer)

    def _like(self, task: EvaluationSet, scorer: Scorer) -> EvaluationRunner:
        other = EvaluationRunner(task, scorer, self._store, self._ledger, self._measured_on)
        other._parts = self._parts
        return other

    def chunks(self, numbers: Iterable[int]) -> list[list[int]]:
        """Prompts in the chunks that are drawn and scored together."""
        return self.task.chunks(numbers)

    def scores(
        self, mixes: Sequence[PipelineSpec], numbers: Sequence[int], step: Step = unheard
    ) -> Float64Array:
        """The scores of all mixes on these prompts: float64 (mixes, prompts).

        A mix that draws a broken picture scores BROKEN_SCORE on all of these prompts.

        Args:
            step: called with the number of stages done, and of all stages (to denoise and to
                decode each mix).
        """
        found = [self._known(mix, numbers) for mix in mixes]
        missing = [i for i, scores in enumerate(found) if scores is None]
        for i in missing:
            # All texts first: a large denoiser would be closed for each text encoder.
            self.texts(mixes[i], numbers)
        by_decoder: dict[str, list[int]] = {}
        done, of = itertools.count(), 2 * len(missing)
        for i in sorted(missing, key=lambda i: (mixes[i].denoiser.content, i)):
            step(next(done), of)
            self.latents(mixes[i], numbers)
            by_decoder.setdefault(mixes[i].decoder.content, []).append(i)
        for group in by_decoder.values():
            for i in group:
                step(next(done), of)
                found[i] = self._score(mixes[i], numbers)
        return np.array(found)

    def pictures(
        self, mix: PipelineSpec, numbers: Sequence[int], count: int | None = None
    ) -> Pictures:
        """The pictures of these prompts: uint8 (N, H, W, 3).

        Args:
            count: return only the first so many.

        Raises:
            BrokenPictureError: a picture is not finite, or constant.
        """
        latents = self.latents(mix, numbers)
        if not self.task.is_large:
            return self._decoded(mix, latents[:count])

        def decode(folder: Path) -> None:
            np.save(folder / PICTURES_FILE, self._decoded(mix, latents))

        inputs = {**mix.contents, "measured_on": self._measured_on, **self.task.inputs(numbers)}
        kept: Pictures = np.load(self._store.make("pictures", inputs, decode).path(PICTURES_FILE))
        return kept[:count]

    def _decoded(self, mix: PipelineSpec, latents: Float32Array) -> Pictures:
        pipeline = self._pipeline(mix)
        size = self._batch
        batches = [latents[i : i + size] for i in range(0, len(latents), size)]
        return np.concatenate([to_pictures(pipeline.decode(batch)) for batch in batches])

    def knows(self, mix: PipelineSpec, numbers: Sequence[int]) -> bool:
        """Whether the ledger has the scores of a mix on these prompts."""
        return self._known(mix, numbers) is not None

    def _known(self, mix: PipelineSpec, numbers: Sequence[int]) -> list[float] | None:
        value = self._ledger.find(self._scorer.metric, self.inputs(mix, numbers))
        return None if value is None or "scores" not in value else list(value["scores"])

    def inputs(self, mix: PipelineSpec, numbers: Sequence[int]) -> dict[str, Any]:
        """Everything a figure of a mix on these prompts depends on: its key in the ledger."""
        measured = {"judge": self._scorer.content(mix), "measured_on": self._measured_on}
        return {
            **mix.contents,
            **self.task.inputs(numbers),
            **(self.task.judged(numbers) if self._scorer.reads_captions else {}),
            **measured,
        }

    def times(
        self, mix: PipelineSpec, placement: Placement, count: int, slow_s: float
    ) -> list[float]:
        """Seconds per picture, drawn one by one, without the time for loading.

        Args:
            count: pictures to draw.
            slow_s: stop after a picture that takes longer.
        """
        found: list[float] = []
        for _ in range(count):
            pipeline = self._pipeline(mix, placement)
            since, opening = time.perf_counter(), self._parts.opening_s
            pipeline.draw(self.task.request([0], mix.recipe))
            opening = self._parts.opening_s - opening
            found.append(time.perf_counter() - since - opening)
            if found[-1] > slow_s:
                break
        return found

    def _score(self, mix: PipelineSpec, numbers: Sequence[int]) -> list[float]:
        self.drawn += len(numbers)
        value: dict[str, Any] = {}
        try:
            pictures = self.pictures(mix, numbers)
            value = {"scores": self._finite(self._scorer.score(mix, pictures, numbers, self))}
        except BrokenPictureError as error:
            value = {"scores": [BROKEN_SCORE] * len(numbers), "broken": str(error)}
        self._ledger.record(self._scorer.metric, self.inputs(mix, numbers), value)
        return list(value["scores"])

    def _finite(self, scores: Sequence[float]) -> list[float]:
        """The scores, which must be finite: a NaN would neither win nor lose a comparison.

        Raises:
            EngineError: one is not a finite number.
        """
        if not np.isfinite(scores).all():
            raise EngineError(
                f"{self._scorer.metric} of whole pictures is {broken_words(np.asarray(scores))}; "
                "check the judge's files, or choose another judge"
            )
        return list(scores)

    def latents(self, mix: PipelineSpec, numbers: Sequence[int]) -> Float32Array:
        """Denoised latents float32 (N, C, h, w), drawn once for all mixes that share them.

        Those are mixes with the same encoders and denoiser, whose decoders enlarge equally.
        """
        contents = {name: what for name, what in mix.contents.items() if name != Role.DECODER}
        inputs = {
            **contents,
            "measured_on": self._measured_on,
            "shape": mix.latents.shape(self.task.height, self.task.width),
            **self.task.inputs(numbers),
        }

        def draw(folder: Path) -> None:
            text, negative = self.texts(mix, numbers)
            pipeline = self._pipeline(mix)
            parts = [
                pipeline.denoise(
                    self.task.request(numbers[i : i + self._batch], mix.recipe),
                    text.rows(i, i + self._batch),
                    negative,
                )
                for i in range(0, len(text), self._batch)
            ]
            np.save(folder / LATENTS_FILE, np.concatenate(parts))

        artifact = self._store.make("latents", inputs, draw)
        latents: Float32Array = np.load(artifact.path(LATENTS_FILE))
        return latents

    def texts(
        self, mix: PipelineSpec, numbers: Sequence[int]
    ) -> tuple[TextEmbeddings, TextEmbeddings | None]:
        """Embeddings of these prompts, and the unconditional embeddings of guidance, if any.

        Prompts are encoded in whole groups, so that a large text encoder is not loaded for each.
        """
        recipe, conditioning = mix.recipe, mix.recipe.conditioning
        groups = self.task.groups(numbers)
        encoded = [self._of_group(mix, group) for group in groups]
        by_number = {
            number: of_group.rows(place, place + 1)
            for group, of_group in zip(groups, encoded, strict=True)
            for place, number in enumerate(group, 1)
        }
        text = TextEmbeddings.concatenated([by_number[number] for number in numbers])
        source = conditioning.negative(recipe.guidance_scale, recipe.negative_prompt)
        return text, encoded[0].rows(0, 1).as_negative(source)

    def _of_group(self, mix: PipelineSpec, group: Sequence[int]) -> TextEmbeddings:
        """Embeddings of the negative prompt, and of the prompts of a group."""
        recipe, conditioning = mix.recipe, mix.recipe.conditioning
        prompts = [recipe.negative_prompt, *(self.task.prompts[i] for i in group)]
        by_encoder = {
            role: self._embeddings(role, encoder, prompts, conditioning)
            for role, encoder in mix.encoders.items()
        }
        return join_embeddings(conditioning, by_encoder)

    def _embeddings(
        self, role: Role, encoder: LoadablePart, prompts: Sequence[str], conditioning: Conditioning
    ) -> TextEmbeddings:
        """One encoder's embeddings of these texts, which the store keeps.

        Args:
            prompts: the negative prompt, then the others.
        """
        inputs = {
            "text_encoder": encoder.content,
            "texts": list(prompts),
            "lowercase": conditioning.lowercase,
            "on": self._measured_on,
        }

        def encode(folder: Path) -> None:
            tokenizer = encoder.tokenizer
            assert tokenizer is not None
            size = WORKLOAD.batch
            session = self._parts.session(role, encoder)
            parts = [
                encode_text(
                    session, tokenizer, prompts[i : i + size], conditioning, role, int(i == 0)
                )
                for i in range(0, len(prompts), size)
            ]
            np.savez(folder / EMBEDDINGS_FILE, **TextEmbeddings.concatenated(parts).arrays())  # type: ignore[arg-type]

        with np.load(self._store.make("states", inputs, encode).path(EMBEDDINGS_FILE)) as arrays:
            return TextEmbeddings(**arrays)

    def _pipeline(self, mix: PipelineSpec, placement: Placement | None = None) -> Pipeline:
        """A pipeline of these parts for one use: opening another part may close one of them."""
        return Pipeline(
            {role: partial(self._parts.session, role, part) for role, part in mix.parts.items()},
            {r: part.tokenizer for r, part in mix.encoders.items() if part.tokenizer is not None},
            lambda _: mix.recipe.sampler,
            mix.latents,
            placement or Placement(),
            mix.recipe.conditioning,
        )
