"""Single files of every base make the folders that they were written from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from sdpack.export.single_file.folder import folder_of_file
from sdpack.export.single_file.options import FileOptions

from tests.sdpack.export.single_file import originals
from tests.sdpack.export.single_file.conftest import MODELS, Tiny, index_of

Model = Callable[[str], Tiny]


def made(tiny: Tiny, **more: Any) -> Path:
    return folder_of_file(tiny.file, FileOptions(folder=tiny.configs, **more), lambda _: None)


def drawn(folder: Path) -> np.ndarray[Any, Any]:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    named = inspect.signature(pipeline.__call__).parameters
    more = {"max_sequence_length": 20} if "max_sequence_length" in named else {}
    images = pipeline(
        "a red cat",
        height=48,
        width=64,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
        **more,
    ).images
    return np.asarray(images)


@pytest.mark.parametrize("name", MODELS)
def test_a_file_becomes_the_folder_it_was_written_from(tiny: Model, name: str) -> None:
    model = tiny(name)
    folder = made(model)
    compared = 0
    for path in sorted(model.folder.glob("*/*.safetensors")):
        wanted = originals.weights(path.parent)
        found = originals.weights(folder / path.parent.name)
        assert found.keys() == wanted.keys()
        for key, tensor in wanted.items():
            assert torch.equal(found[key], tensor), (path.parent.name, key)
            compared += 1
    assert compared > 100
    assert index_of(folder)["_class_name"] == index_of(model.folder)["_class_name"]


@pytest.mark.parametrize("name", MODELS)
def test_a_file_draws_what_its_folder_draws(tiny: Model, name: str) -> None:
    model = tiny(name)
    one, other = drawn(model.folder), drawn(made(model))
    assert one.std() > 0.01
    assert np.array_equal(one, other)
