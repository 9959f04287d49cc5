"""Positions and attention of PixArt."""

from __future__ import annotations

import pytest
import torch
from sdpack.export.denoisers.pixart import PixArt, squeezes_checked

from tests.e2e import families


@pytest.mark.parametrize("size", [(8, 8), (6, 10)])
def test_a_part_predicts_the_noise_of_its_model(size: tuple[int, int]) -> None:
    model = families.pixart()["transformer"].eval()
    sample, states = torch.randn(2, 4, *size), torch.randn(2, 5, 2 * families.WIDTH)
    mask = torch.tensor([[1] * 5, [1, 1, 0, 0, 0]])
    time = torch.tensor([500.0])
    sizes = {"resolution": None, "aspect_ratio": None}
    with torch.no_grad():
        whole = model(
            sample,
            states,
            time.expand(2),
            encoder_attention_mask=mask,
            added_cond_kwargs=sizes,
        ).sample
        made = PixArt(model)(sample, time, states, mask)
    assert torch.allclose(made, whole.chunk(2, dim=1)[0], atol=1e-5)


def test_while_it_is_traced_a_squeeze_of_a_long_axis_does_nothing() -> None:
    with squeezes_checked():
        assert torch.ones(2, 3).squeeze(0).shape == (2, 3)
        assert torch.ones(1, 3).squeeze(0).shape == (3,)
        assert torch.ones(1, 3, 1).squeeze().shape == (3,)
    assert torch.Tensor.squeeze is torch._C.TensorBase.squeeze
