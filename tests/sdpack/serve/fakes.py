"""A server over a worker that draws at the test's command."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from sdpack.documents.manifest import Manifest
from sdpack.domain.placement import Role
from sdpack.errors import BrokenPictureError
from sdpack.runtime.sampler import Stepped
from sdpack.runtime.sampler_label import SamplerLabel
from sdpack.runtime.truncation import Truncation
from sdpack.serve.app import Settings, application
from sdpack.serve.inference_worker import ImageOrError, InferenceWorker
from sdpack.serve.jobs import Jobs
from sdpack.serve.limits import Limits
from sdpack.serve.metrics import Metrics
from sdpack.serve.scheduler import Scheduler
from sdpack.serve.server import Server, config_of
from sdpack.serve.service import Service
from sdpack.serve.work import BatchKey, ImageRequest

from tests.sdpack.documents.test_bundle import manifest as bundled

STEPS = 4
SAMPLING = {
    "steps": STEPS,
    "other_steps": [2, 8],
    "guidance_scale": 3.0,
    "negative_prompt": "",
    "height": 64,
    "width": 64,
    "sizes": [[64, 64], [64, 96]],
    "batch": 4,
}
READ = 300  # characters of a prompt
KIND = BatchKey(64, 64, STEPS, 3.0, "")


def manifest(**changes: Any) -> Manifest:
    return bundled(**{"sampling": SAMPLING, "name": "fake", **changes})


class FakeWorker:
    """Draws squares whose grey is the seed; steps only as far as it is allowed to.

    Attributes:
        batches: the prompts of each batch, as they were begun.
        begun: set when a batch is.
        go: unset, each step waits for it.
        loadable: unset, loading waits for it.
        reads: for each text encoder, how many tokens and characters of a prompt it reads.
    """

    def __init__(self) -> None:
        self.manifest = manifest()
        self.sampler = SamplerLabel("DPM++ 2M", "Karras", "DPMSolverMultistepScheduler")
        self.batches: list[list[str]] = []
        self.steps: list[int] = []
        self.begun = threading.Event()
        self.go = threading.Event()
        self.go.set()
        self.loadable = threading.Event()
        self.loadable.set()
        self.reads = {Role.TEXT_ENCODER: (77, READ)}
        self.refusal: Exception | None = None
        self.closed = False

    def load(self) -> None:
        assert self.loadable.wait(20)
        self.try_out()

    def try_out(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    def draw(
        self, kind: BatchKey, prompts: Sequence[str], seeds: Sequence[int], stepped: Stepped
    ) -> list[ImageOrError]:
        self.batches.append(list(prompts))
        self.steps.append(0)
        self.begun.set()
        for step in range(1, kind.steps + 1):
            assert self.go.wait(20)
            stepped(step, kind.steps)
            self.steps[-1] = step
        if "fail" in prompts:
            raise RuntimeError("a kernel of another's making")
        return [self._picture(kind, p, s) for p, s in zip(prompts, seeds, strict=True)]

    def truncations(self, prompt: str, negative: bool = False) -> list[Truncation]:
        return [
            Truncation(role, tokens, prompt[:characters])
            for role, (tokens, characters) in self.reads.items()
            if len(prompt) > characters
        ]

    def _picture(self, kind: BatchKey, prompt: str, seed: int) -> ImageOrError:
        if prompt == "broken":
            return BrokenPictureError("a picture is one flat colour")
        picture = np.full((kind.height, kind.width, 3), seed % 256, np.uint8)
        picture[0] = 255
        if prompt == "noise":
            return np.random.default_rng(seed).integers(0, 256, picture.shape, np.uint8)
        return picture

    def close(self) -> None:
        self.closed = True


def service(
    worker: FakeWorker,
    limits: Limits | None = None,
    batch: int = 4,
    aliases: Sequence[str] = (),
) -> Service:
    chosen = limits or Limits(wait_s=0.0)
    metrics = Metrics(batch, 100)
    drawing = cast(InferenceWorker, worker)
    scheduler = Scheduler(drawing, batch, chosen, metrics)
    return Service(worker.manifest, drawing, chosen, metrics, scheduler, Jobs(chosen), aliases)


def asked(
    prompt: str = "a cat", count: int = 1, seed: int = 0, kind: BatchKey = KIND
) -> ImageRequest:
    from sdpack.runtime.pictures import Format

    return ImageRequest(kind, prompt, seed, count, Format())


@contextmanager
def serving(
    worker: FakeWorker, settings: Settings | None = None
) -> Iterator[tuple[str, Server, Service]]:
    """A real server on a port of this machine: where it is, itself, and what it serves."""
    given = settings or Settings(Limits(wait_s=0.0))
    served = service(worker, given.limits, aliases=given.aliases)
    ended: list[Server] = []

    def failed() -> None:
        ended[0].should_exit = True

    app = application(served, given, failed=failed)
    urls: list[str] = []
    server = Server(config_of(app, "127.0.0.1", 0), served, urls.append)
    ended.append(server)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not urls:
            assert thread.is_alive()
        yield urls[0], server, served
    finally:
        worker.go.set()
        worker.loadable.set()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
