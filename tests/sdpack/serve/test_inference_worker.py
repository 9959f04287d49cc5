"""The worker over a bundle whose parts are a few operators each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sdpack.documents.bundle import open_bundle
from sdpack.domain.precision import Runtime
from sdpack.errors import BrokenPictureError, PromptError
from sdpack.runtime.bundle import pipeline, request
from sdpack.serve.inference_worker import InferenceWorker, parameters_of
from sdpack.serve.work import BatchKey

from tests.sdpack.bundles import SIDE, STEPS, TOKENS, write_drawing_bundle
from tests.sdpack.serve.fakes import asked

KIND = BatchKey(SIDE, SIDE, STEPS, 2.0, "a dog")
CPU = Runtime.ONNXRUNTIME_CPU


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worker") / "bundle"
    write_drawing_bundle(folder)
    return folder


@pytest.fixture
def stages() -> list[str]:
    return []


@pytest.fixture
def worker(folder: Path, stages: list[str]) -> Iterator[InferenceWorker]:
    def timed(stage: str, seconds: float) -> None:
        assert seconds >= 0
        stages.append(stage)

    made = InferenceWorker(folder, open_bundle(folder), CPU, 1, timed)
    yield made
    made.close()


def test_it_draws_what_the_bundle_draws(
    folder: Path, worker: InferenceWorker, stages: list[str]
) -> None:
    told: list[tuple[int, int]] = []
    worker.load()
    drawn = worker.draw(KIND, ["a cat", "a fox"], [3, 4], lambda *step: told.append(step))
    manifest = open_bundle(folder)
    wanted = pipeline(folder, manifest, CPU).draw(
        request(manifest, ["a cat", "a fox"], [3, 4], guidance_scale=2.0, negative_prompt="a dog")
    )
    for seen, picture in zip(drawn, wanted, strict=True):
        assert np.array_equal(np.asarray(seen), picture)
    assert told == [(step, STEPS) for step in range(1, STEPS + 1)]
    assert stages == ["encode", "denoise", "decode"]


def test_a_broken_picture_is_reported_in_place_of_that_picture_alone(
    worker: InferenceWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = worker._pipeline.decode

    def broken(latents: np.ndarray) -> np.ndarray:
        pictures = decode(latents)
        pictures[0] = np.nan
        return pictures

    monkeypatch.setattr(worker._pipeline, "decode", broken)
    first, second = worker.draw(KIND, ["a", "b"], [1, 2], lambda *_: None)
    assert isinstance(first, BrokenPictureError)
    assert isinstance(second, np.ndarray)


def test_an_unsupported_number_of_steps_is_refused(worker: InferenceWorker) -> None:
    with pytest.raises(PromptError, match="99 steps"):
        worker.request(replace(KIND, steps=99), ["a"], [1])


def test_a_long_prompt_is_reported_before_it_is_drawn(worker: InferenceWorker) -> None:
    assert worker.truncations("a cat") == []
    (found,) = worker.truncations("a cat " * TOKENS)
    assert found.tokens == TOKENS


def test_generation_parameters_describe_the_picture(worker: InferenceWorker) -> None:
    made = parameters_of(worker, asked(prompt="a cat", seed=5, kind=KIND), 6)
    assert (made.prompt, made.negative_prompt, made.seed) == ("a cat", "a dog", 6)
    assert (made.width, made.height, made.steps, made.guidance_scale) == (SIDE, SIDE, STEPS, 2.0)
    assert (made.model, made.sampler) == (worker.manifest.name, worker.sampler)
