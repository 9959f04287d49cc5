"""The Python model of a repository: the pipeline, its parts behind Triton."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdpack.documents.bundle import read_manifest
from sdpack.documents.manifest import Engine, Manifest
from sdpack.documents.profile import Size, parse_sizes
from sdpack.domain.arrays import Float32Array
from sdpack.domain.closing import Closing
from sdpack.domain.precision import Runtime
from sdpack.engines.session import Arrays
from sdpack.errors import EngineError, InputError, PromptError, SdpackError
from sdpack.runtime.bundle import pipeline, request
from sdpack.runtime.pipeline import Request, to_pictures
from sdpack.serve.limits import MOST_GUIDANCE, RANDOM_SEEDS

PARTS = "parts.json"
BUNDLE_FOLDER = "bundle"  # the folder of the files this model reads


def runtime_of(manifest: Manifest) -> Runtime:
    """The runtime Triton runs the parts with; it has no backend for TensorRT-RTX."""
    wanted = manifest.profile.runtime
    return Runtime.ONNXRUNTIME_CUDA if wanted is Runtime.TENSORRT_RTX else wanted


class TritonSession(Closing):
    """A session that runs a part's model in Triton.

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
        """Does nothing: Triton owns the model."""


class Model:
    """The model that Triton calls.

    Args:
        folder: the folder of the model's version.
        backend: Triton's `triton_python_backend_utils`.

    Raises:
        BundleError: the exported bundle is damaged.
    """

    def __init__(self, folder: Path, backend: Any) -> None:
        self._backend = backend
        self._manifest = read_manifest(folder / BUNDLE_FOLDER)
        parts = json.loads((folder / PARTS).read_text())

        def opened(engine: Engine) -> TritonSession:
            return TritonSession(**parts[engine.graph], backend=backend)

        self._pipeline = pipeline(
            folder / BUNDLE_FOLDER, self._manifest, runtime_of(self._manifest), opened=opened
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for each request; images with the same settings are drawn together."""
        answers: dict[int, Any] = {}
        images: dict[int, dict[int, NDArray[np.uint8]]] = {}
        kinds: dict[tuple[Any, ...], list[tuple[int, int, Request]]] = {}
        for number, each in enumerate(requests):
            try:
                rows = self._rows(each)
            except SdpackError as error:
                answers[number] = self._failed(error)
                continue
            images[number] = {}
            for row, asked in enumerate(rows):
                kinds.setdefault(_kind(asked), []).append((number, row, asked))
        sampling = self._manifest.sampling
        most = sampling.batch
        for alike in kinds.values():
            for start in range(0, len(alike), most):
                batch = alike[start : start + most]
                try:
                    decoded = self._decoded(_together([asked for _, _, asked in batch]))
                except SdpackError as error:
                    answers |= {number: self._failed(error) for number, _, _ in batch}
                    continue
                for place, (number, row, _) in enumerate(batch):
                    try:
                        (images[number][row],) = to_pictures(decoded[place : place + 1])
                    except SdpackError as error:
                        answers[number] = self._failed(error)
        for number, rows_of in images.items():
            if number not in answers:
                answers[number] = self._answer(rows_of)
        return [answers[number] for number in range(len(requests))]

    def _decoded(self, asked: Request) -> Float32Array:
        latents = self._pipeline.denoise(asked, *self._pipeline.texts(asked))
        return self._pipeline.decode(latents)

    def _answer(self, rows: dict[int, NDArray[np.uint8]]) -> Any:
        """The images of one request, which must have the same size."""
        ordered = [rows[row] for row in sorted(rows)]
        if len({image.shape for image in ordered}) > 1:
            return self._failed(PromptError("SIZE: the rows of one request differ in size"))
        image = np.ascontiguousarray(np.stack(ordered))
        tensor = self._backend.Tensor("IMAGE", image)
        return self._backend.InferenceResponse(output_tensors=[tensor])

    def _rows(self, each: Any) -> list[Request]:
        """A pipeline request for each row of a Triton request.

        Raises:
            PromptError: one cannot be drawn.
        """
        prompts = self._texts(each, "PROMPT")
        if not prompts:
            raise PromptError("PROMPT is missing")
        seeds, steps = self._numbers(each, "SEED"), self._numbers(each, "STEPS")
        scales, sizes = self._numbers(each, "GUIDANCE_SCALE"), self._texts(each, "SIZE")
        negative = self._texts(each, "NEGATIVE_PROMPT")
        wrong = [scale for scale in scales if not 0 <= scale <= MOST_GUIDANCE]
        if wrong:
            raise PromptError(
                f"GUIDANCE_SCALE: {wrong[0]} is out of range; use 0 to {MOST_GUIDANCE:g}"
            )
        return [
            request(
                self._manifest,
                [prompt],
                [int(seeds[row]) if seeds else secrets.randbelow(RANDOM_SEEDS)],
                guidance_scale=float(scales[row]) if scales else None,
                negative_prompt=negative[row] if negative else None,
                size=_size(sizes[row]) if sizes else None,
                steps=int(steps[row]) if steps else None,
            )
            for row, prompt in enumerate(prompts)
        ]

    def _numbers(self, each: Any, name: str) -> list[Any]:
        tensor = self._backend.get_input_tensor_by_name(each, name)
        return [] if tensor is None else tensor.as_numpy().reshape(-1).tolist()

    def _texts(self, each: Any, name: str) -> list[str]:
        try:
            return [text.decode() for text in self._numbers(each, name)]
        except UnicodeDecodeError as cause:
            raise PromptError(f"{name} is not valid UTF-8 ({cause})") from cause

    def _failed(self, error: SdpackError) -> Any:
        kinds = self._backend.TritonError
        kind = kinds.INVALID_ARG if isinstance(error, InputError) else kinds.INTERNAL
        words = kinds(str(error), kind)
        return self._backend.InferenceResponse(output_tensors=[], error=words)

    def close(self) -> None:
        """Free what this model holds."""
        self._pipeline.close()


def _size(text: str) -> Size:
    try:
        return parse_sizes(text)[0]
    except InputError as cause:
        raise PromptError(f"SIZE: {cause}") from cause


def _kind(asked: Request) -> tuple[Any, ...]:
    """The settings that images drawn together share."""
    return asked.height, asked.width, asked.steps, asked.guidance_scale, asked.negative_prompt


def _together(alike: Sequence[Request]) -> Request:
    prompts = [asked.prompts[0] for asked in alike]
    return replace(alike[0], prompts=prompts, seeds=[asked.seeds[0] for asked in alike])
