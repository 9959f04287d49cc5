"""Lumina-Image 2 with texts of different lengths in one batch."""

from __future__ import annotations

import copy

import pytest
import torch
from sdpack.export.denoisers.lumina2 import Lumina2

from tests.e2e.language_families import WIDTH, lumina2_transformer


@pytest.mark.parametrize("lengths", [(9, 9), (9, 3)])
def test_padding_has_no_effect(lengths: tuple[int, int]) -> None:
    model = lumina2_transformer().eval()
    sample, states = torch.randn(2, 4, 6, 8), torch.randn(2, 9, WIDTH)
    mask = torch.tensor([[1] * length + [0] * (9 - length) for length in lengths])
    time = torch.tensor([300.0])
    with torch.no_grad():
        wanted = model(sample, (1 - time / 1000).expand(2), states, mask, return_dict=False)[0]
        made = Lumina2(copy.deepcopy(model))(sample, time, states, mask)
    error = (made + wanted).abs().max() / wanted.abs().max()
    assert error < 1e-4
