"""What all denoisers share."""

from __future__ import annotations

import torch
from sdpack.export.denoisers.wrapper import Wrapper
from torch import Tensor, nn


class Model(nn.Module):
    """As models of diffusers do, it returns a tuple unless it is asked for more."""

    def forward(self, sample: Tensor, scale: float, return_dict: bool = True) -> tuple[Tensor]:
        assert not return_dict
        return (sample * scale,)


def test_a_model_is_run_without_its_output_class() -> None:
    wrapped = Wrapper(Model())
    assert torch.equal(wrapped._run(torch.ones(2), scale=3.0), 3 * torch.ones(2))
