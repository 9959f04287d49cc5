"""The Python model of a repository: the pipeline, its parts behind Triton."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sdpack.bundle import Engine, Manifest, read_manifest
from sdpack.engines.session import Arrays
from sdpack.errors import EngineError, PromptError, SdpackError
from sdpack.precision import Runtime
from sdpack.profile import parse_sizes
from sdpack.runtime.bundle import pipeline, request
from sdpack.runtime.pipeline import Request

PARTS = "parts.json"
HELD = "bundle"  # the folder of what is read here
RANDOM_SEEDS = 2**32


def runtime_of(manifest: Manifest) -> Runtime:
    """What Triton runs the parts with: it has no backend for TensorRT-RTX."""
    wanted = manifest.profile.runtime
    return Runtime.ONNXRUNTIME_CUDA if wanted is Runtime.TENSORRT_RTX else wanted


class TritonSession:
    """A part's model, as if it were loaded here.

    Args:
        backend: Triton's `triton_python_backend_utils`.
    """

    def __init__(self, model: str, outputs: Sequence[str], backend: Any) -> None:
        self._model = model
        self._outputs = list(outputs)
        self._backend = backend

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        backend = self._backend
        asked = backend.InferenceRequest(
            model_name=self._model,
            requested_output_names=self._outputs,
            inputs=[backend.Tensor(name, np.ascontiguousarray(x)) for name, x in inputs.items()],
            preferred_memory=backend.PreferredMemory(backend.TRITONSERVER_MEMORY_CPU, 0),
        )
        answer = asked.exec()
        if answer.has_error():
            raise EngineError(f"{self._model} failed to run: {answer.error().message()}")
        tensors = {n: backend.get_output_tensor_by_name(answer, n) for n in self._outputs}
        return {name: tensor.as_numpy() for name, tensor in tensors.items()}

    def close(self) -> None:
        """Triton has it; nothing to free here."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Model:
    """What Triton calls.

    Args:
        folder: of the model's version.
        backend: Triton's `triton_python_backend_utils`.

    Raises:
        BundleError: what was exported is damaged.
    """

    def __init__(self, folder: Path, backend: Any) -> None:
        self._backend = backend
        self._manifest = read_manifest(folder / HELD)
        parts = json.loads((folder / PARTS).read_text())

        def opened(engine: Engine) -> TritonSession:
            return TritonSession(**parts[engine.graph], backend=backend)

        self._pipeline = pipeline(
            folder / HELD, self._manifest, runtime_of(self._manifest), opened=opened
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for each request; those of a kind are drawn together."""
        answers: dict[int, Any] = {}
        groups: dict[tuple[Any, ...], list[tuple[int, Request]]] = {}
        for number, each in enumerate(requests):
            try:
                asked = self._understood(each)
            except SdpackError as error:
                answers[number] = self._failed(error)
                continue
            kind = (
                asked.height,
                asked.width,
                asked.steps,
                asked.guidance_scale,
                asked.negative_prompt,
            )
            groups.setdefault(kind, []).append((number, asked))
        for group in groups.values():
            answers |= self._drawn(group)
        return [answers[number] for number in range(len(requests))]

    def _drawn(self, group: Sequence[tuple[int, Request]]) -> dict[int, Any]:
        """Batches up to what the bundle was built for; a request's own rows stay together."""
        answers: dict[int, Any] = {}
        first = group[0][1]
        prompts = [prompt for _, asked in group for prompt in asked.prompts]
        seeds = [seed for _, asked in group for seed in asked.seeds]
        most, settings = self._manifest.sampling.batch, first
        try:
            pictures = np.concatenate(
                [
                    self._pipeline.draw(
                        Request(
                            prompts[i : i + most],
                            seeds[i : i + most],
                            settings.guidance_scale,
                            settings.height,
                            settings.width,
                            settings.negative_prompt,
                            settings.guidance_rescale,
                            settings.steps,
                        )
                    )
                    for i in range(0, len(prompts), most)
                ]
            )
        except SdpackError as error:
            return {number: self._failed(error) for number, _ in group}
        start = 0
        for number, asked in group:
            rows = pictures[start : start + len(asked.prompts)]
            start += len(asked.prompts)
            tensor = self._backend.Tensor("IMAGE", np.ascontiguousarray(rows))
            answers[number] = self._backend.InferenceResponse(output_tensors=[tensor])
        return answers

    def _understood(self, each: Any) -> Request:
        """A request as the pipeline takes it; of several rows the settings of the first.

        Raises:
            PromptError: it cannot be drawn.
        """
        prompts = self._texts(each, "PROMPT")
        if not prompts:
            raise PromptError("PROMPT is missing")
        seeds = self._numbers(each, "SEED") or [secrets.randbelow(RANDOM_SEEDS) for _ in prompts]
        steps, scales = self._numbers(each, "STEPS"), self._numbers(each, "GUIDANCE_SCALE")
        against, sizes = self._texts(each, "NEGATIVE_PROMPT"), self._texts(each, "SIZE")
        return request(
            self._manifest,
            prompts,
            [int(seed) for seed in seeds],
            float(scales[0]) if scales else None,
            against[0] if against else None,
            parse_sizes(sizes[0])[0] if sizes else None,
            int(steps[0]) if steps else None,
        )

    def _numbers(self, each: Any, name: str) -> list[Any]:
        tensor = self._backend.get_input_tensor_by_name(each, name)
        return [] if tensor is None else tensor.as_numpy().reshape(-1).tolist()

    def _texts(self, each: Any, name: str) -> list[str]:
        try:
            return [text.decode() for text in self._numbers(each, name)]
        except UnicodeDecodeError as cause:
            raise PromptError(f"{name} is no UTF-8 ({cause})") from cause

    def _failed(self, error: SdpackError) -> Any:
        words = self._backend.TritonError(str(error))
        return self._backend.InferenceResponse(output_tensors=[], error=words)

    def close(self) -> None:
        """Free what is held here."""
        self._pipeline.close()
