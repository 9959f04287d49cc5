"""Qwen-Image with texts of different lengths in one batch."""

from __future__ import annotations

import copy

import pytest
import torch
from sdpack.export.denoisers.qwen_image import QwenImage

from tests.e2e.language_families import WIDTH, qwen_image_transformer


@pytest.mark.parametrize(("rows", "columns"), [(3, 4), (5, 1)])
@pytest.mark.parametrize("lengths", [(9, 9), (9, 3)])
def test_it_predicts_what_diffusers_predicts(
    lengths: tuple[int, int], rows: int, columns: int
) -> None:
    model = qwen_image_transformer().eval()
    sample, states = torch.randn(2, 4, 2 * rows, 2 * columns), torch.randn(2, 9, WIDTH)
    mask = torch.tensor([[1] * length + [0] * (9 - length) for length in lengths])
    time = torch.tensor([300.0])
    patches = sample.reshape(2, 4, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5)
    with torch.no_grad():
        wanted = model(
            patches.reshape(2, rows * columns, 16),
            states,
            mask,
            (time / 1000).expand(2),
            [[(1, rows, columns)]] * 2,
            return_dict=False,
        )[0]
        made = QwenImage(copy.deepcopy(model))(sample, time, states, mask)
    own = made.reshape(2, 4, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5)
    error = (own.reshape(wanted.shape) - wanted).abs().max() / wanted.abs().max()
    assert error < 1e-5
