"""SANA, and the circle on which SANA-Sprint works."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from sdpack.export.denoisers.sana import Sana

from tests.e2e.language_families import WIDTH, sana_transformer, sprint

SAMPLE, STATES = torch.randn(2, 4, 4, 6), torch.randn(2, 5, WIDTH)
MASK = torch.tensor([[1] * 5, [1, 1, 0, 0, 0]])


@pytest.mark.parametrize("scale", [None, 2.0])
def test_a_part_predicts_what_its_model_does(scale: float | None) -> None:
    """Models for 2048 pixels and more have positions, with a scale."""
    model = sana_transformer(interpolation_scale=scale).eval()
    time = torch.tensor([500.0])
    with torch.no_grad():
        wanted = model(
            SAMPLE, STATES, time.expand(2), encoder_attention_mask=MASK, return_dict=False
        )[0]
        made = Sana(copy.deepcopy(model))(SAMPLE, time, STATES, MASK)
    assert torch.allclose(made, wanted, atol=1e-5)


def test_sprint_turns_an_angle_into_a_time_and_the_flow_into_a_velocity() -> None:
    model = sprint()["transformer"].eval()
    angle = 1.1
    time = math.sin(angle) / (math.sin(angle) + math.cos(angle))
    length = math.hypot(time, 1 - time)
    scale = torch.tensor([4.5])
    with torch.no_grad():
        flow = model(
            SAMPLE * length,
            STATES,
            torch.full((2,), time),
            guidance=(scale * model.config.guidance_embeds_scale).expand(2),
            encoder_attention_mask=MASK,
            return_dict=False,
        )[0]
        made = Sana(copy.deepcopy(model))(SAMPLE, torch.tensor([angle]), STATES, MASK, scale)
    wanted = ((1 - 2 * time) * SAMPLE * length + (1 - 2 * time + 2 * time**2) * flow) / length
    assert torch.allclose(made, wanted, atol=1e-4)
