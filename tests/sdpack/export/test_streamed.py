"""Models whose large weights stay in their files are exported as if they were loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sdpack.documents.conditioning import EncoderOutputs, States
from sdpack.engines import onnxruntime
from sdpack.errors import SourceError
from sdpack.export import checkpoint as checkpoints
from sdpack.export import graph, streamed
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.decoder import DecoderPart
from sdpack.export.graph import Shape, seeded_inputs
from sdpack.export.text_encoder import TextEncoderPart
from sdpack.rewrite.onnx_file import MODEL_FILE

from tests.e2e import families
from tests.e2e.language_families import klein_decoder, qwen

SEVERAL = EncoderOutputs(States.SEVERAL, masked=True, layers=(1, 2))
PARTS: dict[str, tuple[Callable[[], Any], Callable[[Any], graph.ExportablePart], int | None]] = {
    "a part of a language model": (
        lambda: qwen(4),
        lambda model: TextEncoderPart(model, None, SEVERAL, 8),
        2,
    ),
    "a T5, whose weights are tied": (
        families.t5,
        lambda model: TextEncoderPart(model, None, EncoderOutputs(masked=True), 8),
        None,
    ),
    "a decoder with buffers": (klein_decoder, DecoderPart, None),
}


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model counts as very large, and nearly every weight as large."""
    monkeypatch.setattr(checkpoints, "MANY", 0)
    monkeypatch.setattr(streamed, "LARGE", 64)


@pytest.mark.parametrize(
    "name",
    [*list(PARTS)[:2], pytest.param("a decoder with buffers", marks=pytest.mark.slow)],
)
def test_the_graph_computes_the_same_bit_for_bit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, part, layers = PARTS[name]
    make().save_pretrained(tmp_path)
    answers = []
    for many in (2**31, 0):
        monkeypatch.setattr(checkpoints, "MANY", many)
        monkeypatch.setattr(streamed, "LARGE", 64)
        model = Checkpoint(tmp_path, layers=layers).load()
        assert bool(streamed.stored_weights(model)) is (many == 0)
        exportable, out = part(model), tmp_path / str(many)
        out.mkdir()
        graph.export(exportable, out)
        inputs = seeded_inputs(exportable, Shape(2, 4, 4))
        given = {key: value.numpy() for key, value in inputs.items()}
        with onnxruntime.load(out / MODEL_FILE) as session:
            answers.append(session.run(given))
    for key, value in answers[0].items():
        assert np.array_equal(value, answers[1][key])


@pytest.mark.usefixtures("streaming")
def test_a_large_weight_takes_memory_only_while_its_module_runs(tmp_path: Path) -> None:
    families.t5().save_pretrained(tmp_path)
    model = Checkpoint(tmp_path).load()
    seen = []
    layer = next(module for module in model.modules() if isinstance(module, torch.nn.Linear))
    layer.register_forward_pre_hook(lambda owner, _: seen.append(held(owner.weight)))
    assert held(layer.weight) == 4
    with torch.no_grad():
        model(input_ids=torch.ones(1, 4, dtype=torch.int64))
    assert seen == [4 * layer.weight.numel()]
    assert held(layer.weight) == 4


def held(weight: torch.Tensor) -> int:
    return weight.untyped_storage().nbytes()


@pytest.mark.usefixtures("streaming")
def test_a_broken_weight_is_named_when_it_is_read(tmp_path: Path) -> None:
    families.t5().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = next(key for key in tensors if key.endswith("wi_0.weight"))
    tensors[name][0, 0] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    model = Checkpoint(tmp_path).load()
    part = TextEncoderPart(model, None, EncoderOutputs(masked=True), 8)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(SourceError, match=f"{name} holds 1 NaN"):
        graph.export(part, out)


@pytest.mark.usefixtures("streaming")
def test_files_with_other_names_are_loaded_as_their_library_does(tmp_path: Path) -> None:
    families.clip().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    renamed = {f"other.{key}": value for key, value in load_file(file).items()}
    save_file(renamed, file, {"format": "pt"})
    with pytest.raises(SourceError, match="holds no tensor"):
        Checkpoint(tmp_path).load()


@pytest.mark.usefixtures("streaming")
def test_weights_of_another_shape_than_the_config_describes_are_named(tmp_path: Path) -> None:
    families.t5().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "d_ff": 48}))
    with pytest.raises(SourceError, match="they are of different models"):
        Checkpoint(tmp_path).load()
