from __future__ import annotations

import torch
from torch import nn

from zoo.training import denoiser


class Oracle(nn.Module):
    """Knows the clean latents, so its velocity is exact."""

    def __init__(self, clean: torch.Tensor, alphas: torch.Tensor) -> None:
        super().__init__()
        self.clean, self.alphas = clean, alphas

    def forward(self, noisy: torch.Tensor, t: torch.Tensor, states: object, n: int) -> torch.Tensor:
        kept = self.alphas[t].sqrt()[:, None, None, None]
        lost = (1 - self.alphas[t]).sqrt()[:, None, None, None]
        noise = (noisy - kept * self.clean) / lost
        return kept * noise - lost * self.clean


def test_the_exact_velocity_has_no_loss() -> None:
    alphas = denoiser.new_scheduler().alphas_cumprod
    clean = torch.randn(64, 16, 8, 8)
    texts = [denoiser.Texts(torch.zeros(1, 16, 4), torch.zeros(1, 16, 4))] * 3
    batch = denoiser.Batch(clean, torch.zeros(64, dtype=torch.long), torch.zeros(64).bool())
    oracle = Oracle(clean, alphas)
    g = torch.Generator().manual_seed(0)
    exact = denoiser.velocity_loss(oracle, alphas, batch, texts, g)  # type: ignore[arg-type]
    assert exact < 1e-4
    oracle.clean = torch.zeros_like(clean)
    g = torch.Generator().manual_seed(0)
    ignorant = denoiser.velocity_loss(oracle, alphas, batch, texts, g)  # type: ignore[arg-type]
    assert ignorant > 0.3


def test_a_dropped_text_is_the_empty_one() -> None:
    texts = denoiser.Texts(torch.arange(6.0).reshape(2, 3, 1).half(), torch.full((1, 3, 1), -1.0))
    seen = texts.batch(torch.tensor([1, 0]), torch.tensor([False, True]))
    assert seen[..., 0].tolist() == [[3.0, 4.0, 5.0], [-1.0, -1.0, -1.0]]
