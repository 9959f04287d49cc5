"""Drawing and scoring many mixes, each shared part of the work done once.

Mixes that share a text encoder share its states, mixes that share a denoiser too share its
latents; both are kept in the store, scores in the ledger, so that a killed run goes on where it
was and a second run draws nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sdpack.artifacts import Ledger, Store, digest
from sdpack.engines.session import Session
from sdpack.errors import BrokenPictureError
from sdpack.evaluate.metrics import Panel, similarity
from sdpack.evaluate.race import BROKEN_SCORE
from sdpack.placement import Placement, Role
from sdpack.runtime.pipeline import Latents, Pictures, Pipeline, Request, to_pictures
from sdpack.runtime.sampler import SamplerTable
from sdpack.runtime.tokenizer import PromptTokenizer

Floats = NDArray[np.float32]
BATCH = 16


@dataclass(frozen=True)
class Drawer:
    """A part as the studio knows it.

    Attributes:
        content: hash of its graph; what was drawn with it is kept under that name.
        load: what opens it.
        tokenizer: a text encoder's; None for the others.
    """

    content: str
    load: Callable[[], Session]
    tokenizer: PromptTokenizer | None = None


@dataclass(frozen=True)
class Trio:
    """The parts of one mix."""

    text_encoder: Drawer
    denoiser: Drawer
    decoder: Drawer

    @property
    def contents(self) -> dict[str, str]:
        return {role.value: getattr(self, role.value).content for role in Role}


@dataclass(frozen=True)
class Task:
    """What every mix draws: the same prompts from the same noise, in the same way.

    Prompt number i starts from seed i.
    """

    prompts: Sequence[str]
    sampler: SamplerTable
    guidance_scale: float
    negative_prompt: str
    height: int
    width: int

    def request(self, numbers: Sequence[int]) -> Request:
        return Request(
            [self.prompts[i] for i in numbers],
            list(numbers),
            self.guidance_scale,
            self.height,
            self.width,
            self.negative_prompt,
        )

    def inputs(self, numbers: Sequence[int]) -> dict[str, Any]:
        """What the pictures of these prompts depend on besides the parts."""
        return {
            "prompts": [self.prompts[i] for i in numbers],
            "seeds": list(numbers),
            "sampler": digest(self.sampler.to_json()),
            "guidance_scale": self.guidance_scale,
            "negative_prompt": self.negative_prompt,
            "size": [self.height, self.width],
        }


class Studio:
    """Draws and scores mixes on one task.

    Args:
        latents: of each decoder, by content.
        panel: what gives the judge, asked for it only when there is something to judge.
        measured_on: the runtime that draws, as the evidence will name it.
    """

    def __init__(
        self,
        task: Task,
        latents: Mapping[str, Latents],
        panel: Callable[[], Panel],
        judge_content: str,
        store: Store,
        ledger: Ledger,
        measured_on: str,
    ) -> None:
        self.task = task
        self.drawn = 0
        self._latents = latents
        self._panel = panel
        self._judge = judge_content
        self._store = store
        self._ledger = ledger
        self._measured_on = measured_on
        self._sessions = _Sessions()

    def scores(self, trios: Sequence[Trio], numbers: Sequence[int]) -> NDArray[np.float64]:
        """Judge similarity of every mix on these prompts: float64 (mixes, prompts).

        A mix that draws a broken picture scores BROKEN_SCORE on all of these prompts.
        """
        found = [self._known(trio, numbers) for trio in trios]
        missing = [i for i, scores in enumerate(found) if scores is None]
        by_decoder: dict[str, list[int]] = {}
        for i in sorted(missing, key=lambda i: (trios[i].denoiser.content, i)):
            self.latents(trios[i], numbers)
            by_decoder.setdefault(trios[i].decoder.content, []).append(i)
        for group in by_decoder.values():
            for i in group:
                found[i] = self._score(trios[i], numbers)
        return np.array(found)

    def pictures(self, trio: Trio, numbers: Sequence[int]) -> Pictures:
        """uint8 (N, H, W, 3).

        Raises:
            BrokenPictureError: a picture is not finite, or constant.
        """
        latents = self.latents(trio, numbers)
        pipeline = self._pipeline(trio)
        batches = [latents[i : i + BATCH] for i in range(0, len(latents), BATCH)]
        return np.concatenate([to_pictures(pipeline.decode(batch)) for batch in batches])

    def _known(self, trio: Trio, numbers: Sequence[int]) -> list[float] | None:
        value = self._ledger.find("similarity", self.inputs(trio, numbers))
        return None if value is None else list(value["scores"])

    def inputs(self, trio: Trio, numbers: Sequence[int]) -> dict[str, Any]:
        """What a figure of a mix on these prompts depends on: its key in the ledger."""
        measured = {"judge": self._judge, "measured_on": self._measured_on}
        return {**trio.contents, **self.task.inputs(numbers), **measured}

    def times(self, trio: Trio, placement: Placement, count: int) -> list[float]:
        """Seconds of each of `count` pictures drawn one by one, loading not counted."""
        pipeline = self._pipeline(trio, placement)
        found = []
        for _ in range(count):
            since = time.perf_counter()
            pipeline.draw(self.task.request([0]))
            found.append(time.perf_counter() - since)
        return found

    def _score(self, trio: Trio, numbers: Sequence[int]) -> list[float]:
        self.drawn += len(numbers)
        value: dict[str, Any] = {}
        try:
            pictures = torch.from_numpy(self.pictures(trio, numbers))
        except BrokenPictureError as error:
            value = {"scores": [BROKEN_SCORE] * len(numbers), "broken": str(error)}
        else:
            panel = self._panel()
            embedded = panel.embed_features(panel.features(pictures))
            texts = [self.task.prompts[i] for i in numbers]
            value = {"scores": similarity(panel, embedded, texts).tolist()}
        self._ledger.record("similarity", self.inputs(trio, numbers), value)
        return list(value["scores"])

    def latents(self, trio: Trio, numbers: Sequence[int]) -> Floats:
        """Denoised latents float32 (N, C, h, w), drawn once for each encoder and denoiser."""
        inputs = {
            "text_encoder": trio.text_encoder.content,
            "denoiser": trio.denoiser.content,
            "measured_on": self._measured_on,
            **self.task.inputs(numbers),
        }

        def draw(folder: Path) -> None:
            states, empty = self.states(trio.text_encoder, numbers)
            pipeline = self._pipeline(trio)
            parts = [
                pipeline.denoise(self.task.request(numbers[i : i + BATCH]), said, empty)
                for i, said in _batches(states)
            ]
            np.save(folder / "latents.npy", np.concatenate(parts))

        artifact = self._store.make("latents", inputs, draw)
        latents: Floats = np.load(artifact.path("latents.npy"))
        return latents

    def states(self, encoder: Drawer, numbers: Sequence[int]) -> tuple[Floats, Floats | None]:
        """Text states (N, T, width) and those of the negative prompt (1, T, width)."""
        asked = self.task.request(numbers)
        texts = [asked.negative_prompt, *asked.prompts]
        inputs = {"text_encoder": encoder.content, "texts": texts, "on": self._measured_on}

        def encode(folder: Path) -> None:
            assert encoder.tokenizer is not None
            session = self._sessions.of(Role.TEXT_ENCODER, encoder)
            ids = encoder.tokenizer.ids(texts)
            said = [session.run({"input_ids": part}) for _, part in _batches(ids)]
            states = np.concatenate([s["last_hidden_state"] for s in said])
            np.save(folder / "states.npy", states.astype(np.float32))

        artifact = self._store.make("states", inputs, encode)
        states: Floats = np.load(artifact.path("states.npy"))
        return states[1:], states[:1] if asked.guided else None

    def _pipeline(self, trio: Trio, placement: Placement | None = None) -> Pipeline:
        assert trio.text_encoder.tokenizer is not None
        parts = {role: getattr(trio, role.value) for role in Role}
        return Pipeline(
            {role: partial(self._sessions.of, role, part) for role, part in parts.items()},
            trio.text_encoder.tokenizer,
            self.task.sampler,
            self._latents[trio.decoder.content],
            placement or Placement(),
        )


class _Sessions:
    """For each role the part that was used last, left open for its next use."""

    def __init__(self) -> None:
        self._open: dict[Role, tuple[str, Session]] = {}

    def of(self, role: Role, drawer: Drawer) -> Session:
        """A session of this part; another one of the role is closed."""
        content, session = self._open.get(role, (None, None))
        if session is None or content != drawer.content:
            if session is not None:
                del self._open[role]
                session.close()
            session = drawer.load()
            self._open[role] = (drawer.content, session)
        return session


def _batches(rows: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    for start in range(0, len(rows), BATCH):
        yield start, rows[start : start + BATCH]
