"""Tiny random text encoders as parts, beside what transformers' own classes give out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sdpack.documents.conditioning import EncoderOutputs, States
from sdpack.errors import CatalogError
from sdpack.export.bridge import BridgeModule
from sdpack.export.graph import Shape
from sdpack.export.text_encoder import TextEncoderPart
from torch import Tensor

from tests.e2e import families

PENULTIMATE = EncoderOutputs(States.PENULTIMATE, pooled=True)
SHAPE = Shape(2, 8, 8)


def outputs(part: TextEncoderPart, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        found = part.module(**inputs)
    found = (found,) if isinstance(found, Tensor) else found
    return dict(zip(part.outputs, found, strict=True))


def states_of(model: Any, ids: Tensor, **more: Tensor) -> Any:
    with torch.no_grad():
        return model(input_ids=ids, output_hidden_states=True, **more)


@pytest.mark.parametrize("projected", [False, True])
def test_clip_outputs_the_requested_states_and_pooled_text(projected: bool) -> None:
    model: Any = families.clip(projected=projected).eval()
    part = TextEncoderPart(model, None, PENULTIMATE)
    inputs = part.inputs(SHAPE)
    assert inputs["input_ids"].shape == (2, families.CLIP_TOKENS)
    seen, wanted = outputs(part, inputs), states_of(model, inputs["input_ids"])
    assert torch.equal(seen["last_hidden_state"], wanted.hidden_states[-2])
    pooled = wanted.text_embeds if projected else wanted.pooler_output
    assert torch.equal(seen["text_embeds"], pooled)


def test_only_the_requested_outputs_exist() -> None:
    model = families.clip().eval()
    assert TextEncoderPart(model, None).outputs == ("last_hidden_state",)
    pooled = EncoderOutputs(States.NONE, pooled=True)
    assert TextEncoderPart(model, None, pooled).outputs == ("text_embeds",)


def test_a_t5_takes_a_mask_of_its_padding() -> None:
    model: Any = families.t5().eval()
    part = TextEncoderPart(model, None, EncoderOutputs(masked=True), tokens=12)
    inputs = part.inputs(SHAPE)
    assert inputs["attention_mask"].shape == inputs["input_ids"].shape == (2, 12)
    assert (inputs["attention_mask"].diff(dim=1) <= 0).all()  # ones, and zeros after them
    wanted = states_of(model, inputs["input_ids"], attention_mask=inputs["attention_mask"])
    assert torch.equal(outputs(part, inputs)["last_hidden_state"], wanted.last_hidden_state)


def test_a_bridge_is_run_on_the_states() -> None:
    torch.manual_seed(0)
    model, bridge = families.clip().eval(), BridgeModule(families.WIDTH, 24).eval()
    plain, bridged = (TextEncoderPart(model, each) for each in (None, bridge))
    inputs = plain.inputs(SHAPE)
    with torch.no_grad():
        wanted = bridge(outputs(plain, inputs)["last_hidden_state"])
    assert torch.equal(outputs(bridged, inputs)["last_hidden_state"], wanted)


@pytest.mark.parametrize("skip", [1, 2])
def test_skipped_layers_do_not_affect_the_states(skip: int) -> None:
    """As diffusers' clip_skip: earlier states through the final norm; or earlier by so many."""
    model: Any = families.clip(layers=3).eval()
    ids = TextEncoderPart(model, None).inputs(SHAPE)["input_ids"]
    wanted = states_of(model, ids).hidden_states
    both = TextEncoderPart(model, None, PENULTIMATE, clip_skip=skip)
    if skip == 1:
        seen = outputs(both, {"input_ids": ids})["last_hidden_state"]
        assert torch.equal(seen, wanted[-3])
    norm = getattr(model, "text_model", model).final_layer_norm
    with torch.no_grad():
        normed = norm(wanted[-1 - skip])
    last = TextEncoderPart(model, None, clip_skip=skip)
    seen = outputs(last, {"input_ids": ids})["last_hidden_state"]
    assert torch.allclose(seen, normed, atol=1e-6)


@pytest.mark.parametrize("make", [families.clip, families.t5])
def test_more_layers_than_there_are_cannot_be_skipped(make: Any) -> None:
    with pytest.raises(CatalogError, match=r"clip_skip 3: \w+ has too few layers to skip"):
        TextEncoderPart(make(), None, clip_skip=3)
