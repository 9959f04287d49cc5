"""A model repository, read by Triton's own definitions and run by a stand-in for its server."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sdpack.documents.bundle import open_bundle
from sdpack.runtime.bundle import pipeline, request
from tritonclient.utils import triton_to_np_dtype

from tests.sdpack.serve.triton.backend import Backend, type_of

PROMPTS = ["noto, pizza", "twemoji, red heart"]


@pytest.fixture
def backend(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    made = Backend(repository)
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


@pytest.fixture
def model(repository: Path, backend: Backend) -> Any:
    """The Python model, as Triton makes it."""
    path = repository / "bundle" / "1" / "model.py"
    spec = importlib.util.spec_from_file_location("model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.TritonPythonModel()
    folder = str(repository / "bundle")
    made.initialize({"model_repository": folder, "model_version": "1"})
    return made


def asked(backend: Backend, **values: Any) -> Any:
    """A request of one row, as Triton's dynamic batcher hands it on."""
    kinds = {one.name: type_of(one) for one in backend.configs["bundle"].input}
    inputs = {}
    for name, value in values.items():
        kind = triton_to_np_dtype(kinds[name])
        inputs[name] = backend.Tensor(name, np.array([[value]], kind))
    return SimpleNamespace(inputs=inputs)


def test_it_draws_what_the_bundle_draws(bundle: Path, model: Any, backend: Backend) -> None:
    manifest = open_bundle(bundle)
    wanted = pipeline(bundle, manifest).draw(request(manifest, PROMPTS, [3, 4]))
    requests = [
        asked(backend, PROMPT=prompt.encode(), SEED=seed)
        for prompt, seed in zip(PROMPTS, (3, 4), strict=True)
    ]
    answers = model.execute(requests)
    drawn = [answer.tensors["IMAGE"].as_numpy() for answer in answers]
    assert [picture.dtype for picture in drawn] == [np.uint8] * 2
    assert np.abs(np.concatenate(drawn).astype(int) - wanted).max() <= 2
    assert backend.ran.count("bundle-decoder") == 1, "they were not drawn together"
    model.finalize()


def test_what_is_asked_for_is_heeded(bundle: Path, model: Any, backend: Backend) -> None:
    manifest = open_bundle(bundle)
    wanted = pipeline(bundle, manifest).draw(
        request(manifest, ["a"], [1], guidance_scale=1.5, negative_prompt="b", steps=1)
    )
    values = {"SEED": 1, "STEPS": 1, "GUIDANCE_SCALE": 1.5, "NEGATIVE_PROMPT": b"b"}
    one, other = model.execute(
        [asked(backend, PROMPT=b"a", **values), asked(backend, PROMPT=b"a", SEED=1)]
    )
    drawn = one.tensors["IMAGE"].as_numpy()
    assert np.abs(drawn.astype(int) - wanted).max() <= 2
    assert np.abs(drawn.astype(int) - other.tensors["IMAGE"].as_numpy()).max() > 2


def test_what_is_wrong_is_an_error_of_its_own_request(model: Any, backend: Backend) -> None:
    wrong, right, none = model.execute(
        [
            asked(backend, PROMPT=b"a", STEPS=7),
            asked(backend, PROMPT=b"a"),
            asked(backend, SIZE=b"64"),
        ]
    )
    assert "7 steps" in wrong.error().message()
    assert wrong.error().code == Backend.TritonError.INVALID_ARG
    assert not right.has_error()
    assert "PROMPT is missing" in none.error().message()


def test_a_broken_picture_is_an_error_of_its_own_request(
    model: Any, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = model.model._pipeline.decode

    def broken(latents: NDArray[np.float32]) -> NDArray[np.float32]:
        decoded: NDArray[np.float32] = decode(latents)
        decoded[0] = np.nan
        return decoded

    monkeypatch.setattr(model.model._pipeline, "decode", broken)
    requests = [asked(backend, PROMPT=b"a", SEED=seed) for seed in (1, 2)]
    wrong = asked(backend, PROMPT=b"a", GUIDANCE_SCALE=float("nan"))
    first, second, third = model.execute([*requests, wrong])
    assert "not finite" in first.error().message()
    assert not second.has_error()
    assert "GUIDANCE_SCALE" in third.error().message()
