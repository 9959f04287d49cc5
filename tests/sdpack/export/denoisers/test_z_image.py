"""Z-Image with texts of different lengths in one batch."""

from __future__ import annotations

import copy

import pytest
import torch
from sdpack.export.denoisers.z_image import ZImage

from tests.e2e.language_families import WIDTH, z_image_transformer


@pytest.mark.parametrize("size", [(8, 8), (6, 10), (2, 2)])
def test_each_row_is_predicted_as_if_it_were_alone(size: tuple[int, int]) -> None:
    """Texts of 40, 32 and 1 tokens: more than a group, a whole group, and nearly all padding."""
    model = z_image_transformer().eval()
    sample, states = torch.randn(3, 4, *size), torch.randn(3, 64, WIDTH)
    lengths, time = (40, 32, 1), torch.tensor([300.0])
    mask = torch.tensor([[1] * length + [0] * (64 - length) for length in lengths])
    texts = [states[row, :length] for row, length in enumerate(lengths)]
    images = list(sample.unsqueeze(2).unbind(0))
    with torch.no_grad():
        found = model(images, ((1000 - time) / 1000).expand(3), texts, return_dict=False)[0]
        made = ZImage(copy.deepcopy(model))(sample, time, states, mask)
    wanted = -torch.stack(found).squeeze(2)
    assert torch.allclose(made, wanted, atol=1e-4)
