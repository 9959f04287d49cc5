"""Drawing and scoring many mixes, each shared part of the work done once.

Mixes that share a text encoder share its states, mixes that share a denoiser too share its
latents; both are kept in the store, large pictures too, scores in the ledger, so that a killed run
goes on where it was and a second run draws nothing.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sdpack.documents.conditioning import Conditioning
from sdpack.domain.finite import broken_words
from sdpack.domain.placement import Placement, Role
from sdpack.engines.session import Session
from sdpack.errors import BrokenPictureError, EngineError
from sdpack.evaluate.rules import BROKEN_SCORE
from sdpack.progress import Step, unheard
from sdpack.runtime.pipeline import Latents, Pictures, Pipeline, Request, to_pictures
from sdpack.runtime.sampler import SamplerTable
from sdpack.runtime.text_embeddings import TextEmbeddings, encode_text, join_embeddings
from sdpack.runtime.tokenizer import PromptTokenizer
from sdpack.store.artifacts import Store, digest
from sdpack.store.ledger import Ledger

Floats = NDArray[np.float32]
BATCH = 16  # texts, and pictures of BATCH_PIXELS; fewer of larger ones
BATCH_PIXELS = 64 * 64
SAID = "said.npz"
PICTURES = "pictures.npy"
LARGE = 256 * 256  # pixels of a picture that takes a CPU many seconds
HELD_BYTES = 2 * 2**30  # of parts that are open at once


def is_large(height: int, width: int) -> bool:
    """Whether a picture of so many pixels takes a CPU many seconds."""
    return height * width >= LARGE


@dataclass(frozen=True)
class LoadablePart:
    """A part as the runner knows it.

    Attributes:
        content: hash of its graph; what was drawn with it is kept under that name.
        load: what opens it.
        tokenizer: a text encoder's; None for the others.
        bytes: about what it takes while it is open.
    """

    content: str
    load: Callable[[], Session]
    tokenizer: PromptTokenizer | None = None
    bytes: int = 0


@dataclass(frozen=True)
class SamplingConfig:
    """How a denoiser is run.

    Attributes:
        content: one hash of it.
    """

    sampler: SamplerTable
    conditioning: Conditioning
    guidance_scale: float
    guidance_rescale: float = 0.0
    negative_prompt: str = ""

    @cached_property
    def content(self) -> str:
        return digest(
            {
                "sampler": self.sampler.to_json(),
                "conditioning": self.conditioning.model_dump(mode="json"),
                "guidance": [self.guidance_scale, self.guidance_rescale],
                "negative_prompt": self.negative_prompt,
            }
        )


@dataclass(frozen=True)
class PipelineSpec:
    """The parts of one mix, and how they are run.

    Attributes:
        latents: the space its decoder works in.
        reference: the same parts in fp32, where pictures are compared with theirs.
    """

    parts: Mapping[Role, LoadablePart]
    recipe: SamplingConfig
    latents: Latents
    reference: PipelineSpec | None = None

    @property
    def encoders(self) -> dict[Role, LoadablePart]:
        return {role: part for role, part in self.parts.items() if role.encodes_text}

    @property
    def denoiser(self) -> LoadablePart:
        return self.parts[Role.DENOISER]

    @property
    def decoder(self) -> LoadablePart:
        return self.parts[Role.DECODER]

    @property
    def contents(self) -> dict[str, str]:
        """What its pictures depend on besides what is drawn."""
        parts = {role.value: part.content for role, part in self.parts.items()}
        return {**parts, "recipe": self.recipe.content}


@dataclass(frozen=True)
class EvaluationSet:
    """What every mix draws: the same prompts from the same noise.

    Prompt number i starts from seed i.
    """

    prompts: Sequence[str]
    height: int
    width: int

    @property
    def is_large(self) -> bool:
        """Whether each picture takes long to draw."""
        return is_large(self.height, self.width)

    def request(self, numbers: Sequence[int], recipe: SamplingConfig) -> Request:
        return Request(
            [self.prompts[i] for i in numbers],
            list(numbers),
            recipe.guidance_scale,
            self.height,
            self.width,
            recipe.negative_prompt,
            recipe.guidance_rescale,
        )

    def inputs(self, numbers: Sequence[int]) -> dict[str, Any]:
        """What the pictures of these prompts depend on besides the parts."""
        return {
            "prompts": [self.prompts[i] for i in numbers],
            "seeds": list(numbers),
            "size": [self.height, self.width],
        }


class Scorer(Protocol):
    """What a picture is worth, as a number that is larger for better ones, and at most 1.

    Attributes:
        metric: what it is called in the evidence and in the ledger.
    """

    metric: str

    def content(self, mix: PipelineSpec) -> str:
        """One hash of what the scores of a mix depend on besides its pictures and prompts."""
        ...

    def score(
        self,
        mix: PipelineSpec,
        pictures: Pictures,
        numbers: Sequence[int],
        runner: EvaluationRunner,
    ) -> Sequence[float]:
        """Of each of these pictures of a mix, uint8 (N, H, W, 3), of the prompts of these numbers.

        Raises:
            BrokenPictureError: what they are compared with is broken.
        """
        ...


class EvaluationRunner:
    """Draws and scores mixes on one task.

    Args:
        measured_on: the runtime that draws, as the evidence will name it.
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
        self._batch = max(1, BATCH * BATCH_PIXELS // (task.height * task.width))
        self._store = store
        self._ledger = ledger
        self._measured_on = measured_on
        self._sessions = _Sessions()

    def on(self, task: EvaluationSet) -> EvaluationRunner:
        """A runner for another task that has the same parts open."""
        other = EvaluationRunner(task, self._scorer, self._store, self._ledger, self._measured_on)
        other._sessions = self._sessions
        return other

    def scores(
        self, mixes: Sequence[PipelineSpec], numbers: Sequence[int], step: Step = unheard
    ) -> NDArray[np.float64]:
        """What every mix is worth on these prompts: float64 (mixes, prompts).

        A mix that draws a broken picture scores BROKEN_SCORE on all of these prompts.

        Args:
            step: told of what there is to denoise and to decode.
        """
        found = [self._known(mix, numbers) for mix in mixes]
        missing = [i for i, scores in enumerate(found) if scores is None]
        for i in missing:
            # All of them first: a large denoiser is not left open beside a text encoder.
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
        """uint8 (N, H, W, 3).

        Args:
            count: of them; all by default.

        Raises:
            BrokenPictureError: a picture is not finite, or constant.
        """
        latents = self.latents(mix, numbers)
        if not self.task.is_large:
            return self._decoded(mix, latents[:count])

        def decode(folder: Path) -> None:
            np.save(folder / PICTURES, self._decoded(mix, latents))

        inputs = {**mix.contents, "measured_on": self._measured_on, **self.task.inputs(numbers)}
        kept: Pictures = np.load(self._store.make("pictures", inputs, decode).path(PICTURES))
        return kept[:count]

    def _decoded(self, mix: PipelineSpec, latents: Floats) -> Pictures:
        pipeline = self._pipeline(mix)
        size = self._batch
        batches = [latents[i : i + size] for i in range(0, len(latents), size)]
        return np.concatenate([to_pictures(pipeline.decode(batch)) for batch in batches])

    def _known(self, mix: PipelineSpec, numbers: Sequence[int]) -> list[float] | None:
        value = self._ledger.find(self._scorer.metric, self.inputs(mix, numbers))
        return None if value is None or "scores" not in value else list(value["scores"])

    def inputs(self, mix: PipelineSpec, numbers: Sequence[int]) -> dict[str, Any]:
        """What a figure of a mix on these prompts depends on: its key in the ledger."""
        measured = {"judge": self._scorer.content(mix), "measured_on": self._measured_on}
        return {**mix.contents, **self.task.inputs(numbers), **measured}

    def times(
        self, mix: PipelineSpec, placement: Placement, count: int, slow_s: float
    ) -> list[float]:
        """Seconds of each of `count` pictures drawn one by one, loading not counted.

        Args:
            slow_s: a picture that takes longer is the last.
        """
        found: list[float] = []
        for _ in range(count):
            pipeline = self._pipeline(mix, placement)
            since, opening = time.perf_counter(), self._sessions.opening_s
            pipeline.draw(self.task.request([0], mix.recipe))
            opening = self._sessions.opening_s - opening
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
        """The scores of whole pictures; a NaN among them would lose and win every comparison.

        Raises:
            EngineError: one is not a finite number.
        """
        if not np.isfinite(scores).all():
            raise EngineError(
                f"{self._scorer.metric} of whole pictures is {broken_words(np.asarray(scores))}; "
                "check the judge's files, or choose another judge"
            )
        return list(scores)

    def latents(self, mix: PipelineSpec, numbers: Sequence[int]) -> Floats:
        """Denoised latents float32 (N, C, h, w), drawn once for each encoders and denoiser.

        Decoders share them that enlarge alike.
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
            np.save(folder / "latents.npy", np.concatenate(parts))

        artifact = self._store.make("latents", inputs, draw)
        latents: Floats = np.load(artifact.path("latents.npy"))
        return latents

    def texts(
        self, mix: PipelineSpec, numbers: Sequence[int]
    ) -> tuple[TextEmbeddings, TextEmbeddings | None]:
        """What is said of these prompts, and of what guidance moves away from."""
        recipe = mix.recipe
        prompts = [recipe.negative_prompt, *(self.task.prompts[i] for i in numbers)]
        by_encoder = {
            role: self._said(role, encoder, prompts, recipe.conditioning)
            for role, encoder in mix.encoders.items()
        }
        together = join_embeddings(recipe.conditioning, by_encoder)
        text = together.rows(1, len(together))
        if not recipe.conditioning.guided(recipe.guidance_scale):
            return text, None
        negative = together.rows(0, 1)
        if recipe.conditioning.zero_empty and not recipe.negative_prompt:
            negative = negative.zeroed()
        return text, negative

    def _said(
        self, role: Role, encoder: LoadablePart, prompts: Sequence[str], conditioning: Conditioning
    ) -> TextEmbeddings:
        """What one encoder says, asked once."""
        inputs = {
            "text_encoder": encoder.content,
            "texts": list(prompts),
            "lowercase": conditioning.lowercase,
            "on": self._measured_on,
        }

        def encode(folder: Path) -> None:
            tokenizer = encoder.tokenizer
            assert tokenizer is not None
            session = self._sessions.of(role, encoder)
            parts = [
                encode_text(session, tokenizer, prompts[i : i + BATCH], conditioning, role)
                for i in range(0, len(prompts), BATCH)
            ]
            np.savez(folder / SAID, **TextEmbeddings.concatenated(parts).arrays())  # type: ignore[arg-type]

        with np.load(self._store.make("states", inputs, encode).path(SAID)) as arrays:
            return TextEmbeddings(**arrays)

    def _pipeline(self, mix: PipelineSpec, placement: Placement | None = None) -> Pipeline:
        """What draws with these parts, once: another part may close one that was used."""
        return Pipeline(
            {role: partial(self._sessions.of, role, part) for role, part in mix.parts.items()},
            {r: part.tokenizer for r, part in mix.encoders.items() if part.tokenizer is not None},
            lambda _: mix.recipe.sampler,
            mix.latents,
            placement or Placement(),
            mix.recipe.conditioning,
        )


class _Sessions:
    """For each role the part that was used last, left open for its next use.

    Large parts are not open beside others: loading one takes twice what it takes once it is open.

    Attributes:
        opening_s: that was spent on opening parts, and on closing others for them.
    """

    def __init__(self) -> None:
        self.opening_s = 0.0
        self._open: dict[Role, tuple[LoadablePart, Session]] = {}

    def of(self, role: Role, drawer: LoadablePart) -> Session:
        """A session of this part; what it has no room beside is closed."""
        held = self._open.get(role)
        if held is not None and held[0].content == drawer.content:
            return held[1]
        since = time.perf_counter()
        self._close(role)
        for other in list(self._open):
            if drawer.bytes + sum(there.bytes for there, _ in self._open.values()) > HELD_BYTES:
                self._close(other)
        session = drawer.load()
        self._open[role] = (drawer, session)
        self.opening_s += time.perf_counter() - since
        return session

    def _close(self, role: Role) -> None:
        held = self._open.pop(role, None)
        if held is not None:
            held[1].close()
