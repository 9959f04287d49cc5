"""Linear attention computes what diffusers computes, in every precision."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sdpack.export.linear_attention import attend_linearly, linear_attention
from torch.nn.functional import pad, relu

from tests.e2e.language_families import deep_decoder


@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 3))
def test_values_are_weighted_by_the_products(width: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(2, width, count, generator=generator) for _ in range(3))
    query, key = relu(query), relu(key)
    made = linear_attention(query, key, value)
    weights = torch.einsum("bdq,bdk->bqk", query, key)
    totals = weights.sum(-1, keepdim=True)
    shares = torch.where(totals > 0, weights / totals, torch.zeros_like(weights))
    assert torch.allclose(made, torch.einsum("bqk,bdk->bdq", shares, value), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_without_any_weight_the_attention_is_zero(dtype: torch.dtype) -> None:
    nothing, value = torch.zeros(1, 2, 3, dtype=dtype), torch.ones(1, 2, 3, dtype=dtype)
    assert torch.equal(linear_attention(nothing, nothing, value), torch.zeros_like(value))
    scores = torch.matmul(pad(value, (0, 0, 0, 1), value=1.0), nothing.transpose(-1, -2))
    both = torch.matmul(scores, nothing)
    usual = both[..., :-1, :] / (both[..., -1:, :] + 1e-15)
    assert bool(usual.isfinite().all()) is (dtype is torch.float32)


@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
def test_a_decoder_decodes_the_same(size: tuple[int, int]) -> None:
    """diffusers attends in another way to images with fewer pixels than a head is wide."""
    model = deep_decoder().eval()
    latents = torch.randn(1, 4, *size)
    changed = copy.deepcopy(model)
    attend_linearly(changed)
    with torch.no_grad():
        wanted = model.decode(latents, return_dict=False)[0]
        assert torch.allclose(changed.decode(latents, return_dict=False)[0], wanted, atol=1e-4)
