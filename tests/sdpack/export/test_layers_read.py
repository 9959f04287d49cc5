"""Layers that are not read are neither loaded nor exported, and the states stay the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from sdpack.documents.conditioning import EncoderOutputs, States
from sdpack.export import graph
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.layers_read import is_unread, layers_read
from sdpack.export.text_encoder import TextEncoderPart
from sdpack.rewrite.onnx_file import MODEL_FILE
from transformers import BertConfig, BertModel

from tests.e2e import families
from tests.e2e.language_families import gemma, qwen


def bert(layers: int) -> BertModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    config = BertConfig(vocab_size=40, num_hidden_layers=layers, **sizes)
    return BertModel(config, add_pooling_layer=False)


LAST_BUT_ONE = EncoderOutputs(States.PENULTIMATE, masked=True)
SEVERAL = EncoderOutputs(States.SEVERAL, masked=True, layers=(1, 3))
ENCODERS = [
    (lambda: qwen(5), SEVERAL, 3),
    (lambda: qwen(4), LAST_BUT_ONE, 3),
    (gemma, LAST_BUT_ONE, 2),
    (families.clip, EncoderOutputs(States.PENULTIMATE), 2),
    (lambda: bert(3), EncoderOutputs(States.PENULTIMATE), 2),
]


@pytest.mark.parametrize(("make", "outputs", "count"), ENCODERS)
def test_the_cut_encoder_gives_the_same_states_bit_for_bit(
    make: Any, outputs: EncoderOutputs, count: int, tmp_path: Path
) -> None:
    model = make()
    model.save_pretrained(tmp_path)
    whole = Checkpoint(tmp_path)
    layers = layers_read(outputs, 0, whole.config)
    assert layers == count
    cut = replace(whole, layers=layers)
    assert whole.parameters - cut.parameters == cut.unread_parameters > 0

    ids = torch.arange(1, 13).reshape(2, 6)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2]) if outputs.masked else None
    loaded = whole.load()
    with torch.no_grad():
        hidden = loaded(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        if outputs.states is States.SEVERAL:
            wanted = torch.cat([hidden[layer] for layer in outputs.layers], dim=-1)
        else:
            wanted = hidden[-2]
        part = TextEncoderPart(cut.load(), None, outputs, 6)
        inputs = {"input_ids": ids} if mask is None else {"input_ids": ids, "attention_mask": mask}
        assert torch.equal(part.module(**inputs), wanted)
        assert torch.equal(TextEncoderPart(loaded, None, outputs, 6).module(**inputs), wanted)
    tensors = part.module.state_dict().items()
    held = sum(tensor.numel() for name, tensor in tensors if "pooler" not in name)
    assert held == cut.parameters


def test_no_unread_weight_is_in_the_graph(tmp_path: Path) -> None:
    gemma().save_pretrained(tmp_path)
    model = Checkpoint(tmp_path).load()
    graph.export(TextEncoderPart(model, None, LAST_BUT_ONE, 6), tmp_path)
    held = onnx.load(tmp_path / MODEL_FILE).graph.initializer
    weights = sum(w.dims[0] * w.dims[1] for w in held if len(w.dims) == 2 and min(w.dims) > 8)
    cut = Checkpoint(tmp_path, layers=2)
    matrices = sum(
        shape[0] * shape[1]
        for name, shape in cut.shapes()
        if len(shape) == 2 and not is_unread(name, 2)
    )
    assert weights == matrices


@pytest.mark.parametrize(
    "outputs",
    [
        EncoderOutputs(),
        EncoderOutputs(States.PENULTIMATE, pooled=True),
        EncoderOutputs(masked=True),
    ],
)
def test_pooled_embeddings_and_last_states_need_every_layer(outputs: EncoderOutputs) -> None:
    assert layers_read(outputs, 0, {"num_hidden_layers": 4}) is None


def test_skipped_layers_are_not_read_either() -> None:
    config = {"num_hidden_layers": 12}
    assert layers_read(EncoderOutputs(States.PENULTIMATE), 1, config) == 10
    assert layers_read(EncoderOutputs(States.PENULTIMATE), 1, {"num_layers": 12}) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.3.mlp.up_proj.weight", True),
        ("model.layers.2.input_layernorm.weight", False),
        ("text_model.encoder.layers.11.layer_norm1.bias", True),
        ("text_model.final_layer_norm.weight", True),
        ("norm.weight", True),
        ("model.embed_tokens.weight", False),
        ("encoder.layer.3.output.dense.weight", True),
        ("encoder.layer.2.output.LayerNorm.weight", False),
    ],
)
def test_tensors_of_unread_layers_have_their_numbers(name: str, expected: bool) -> None:
    assert is_unread(name, 3) is expected
