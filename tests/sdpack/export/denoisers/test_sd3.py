"""Positions of Stable Diffusion 3, cropped for any size."""

from __future__ import annotations

import pytest
import torch
from sdpack.export.denoisers.sd3 import SD3

from tests.e2e import families


@pytest.mark.parametrize("size", [(8, 8), (6, 10), (24, 24)])
def test_a_part_predicts_what_its_model_does_at_any_size(size: tuple[int, int]) -> None:
    model = families.sd3_transformer().eval()
    sample, states = torch.randn(2, 16, *size), torch.randn(2, 5, 3 * families.WIDTH)
    pooled, time = torch.randn(2, 2 * families.WIDTH), torch.tensor([500.0])
    with torch.no_grad():
        wanted = model(sample, states, pooled, time.expand(2)).sample
        made = SD3(model)(sample, time, states, pooled)
    assert torch.allclose(made, wanted, atol=1e-5)
