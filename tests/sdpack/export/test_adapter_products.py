"""The changes that the factors of adapters make."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from sdpack.export.adapter_file import AdapterTensor
from sdpack.export.adapter_products import LowRank, lycoris_product

sizes = st.integers(1, 4)


@given(sizes, sizes, sizes)
def test_two_factors_make_a_weight_of_their_rank(rows: int, columns: int, rank: int) -> None:
    down, up = torch.randn(rank, columns), torch.randn(rows, rank)
    layer = LowRank(down, up)
    assert layer.rank == rank
    assert layer.made == (rows, columns)
    assert layer.fits((rows, columns))
    assert not layer.fits((rows + 1, columns))
    assert torch.allclose(layer.product(), up @ down, atol=1e-6)


@given(sizes, sizes)
def test_factors_of_different_ranks_do_not_fit(rows: int, columns: int) -> None:
    assert not LowRank(torch.zeros(2, columns), torch.zeros(rows, 3)).fits((rows, columns))


@given(sizes, sizes, sizes)
def test_loha_multiplies_two_products_element_by_element(
    rows: int, columns: int, rank: int
) -> None:
    kind = AdapterTensor
    a1, b1, a2, b2 = (torch.randn(*shape) for shape in ((rows, rank), (rank, columns)) * 2)
    names = (kind.HADA_W1_A, kind.HADA_W1_B, kind.HADA_W2_A, kind.HADA_W2_B)
    made = lycoris_product(dict(zip(names, (a1, b1, a2, b2), strict=True)))
    assert made is not None
    assert torch.allclose(made.product(), (a1 @ b1) * (a2 @ b2), atol=1e-5)


def test_lokr_is_a_kronecker_product() -> None:
    first, second = torch.randn(2, 3), torch.randn(4, 2)
    made = lycoris_product({AdapterTensor.LOKR_W1: first, AdapterTensor.LOKR_W2: second})
    assert made is not None
    assert torch.allclose(made.product(), torch.kron(first, second))


def test_a_lora_is_neither() -> None:
    tensors = {AdapterTensor.DOWN: torch.zeros(1, 2), AdapterTensor.UP: torch.zeros(2, 1)}
    assert lycoris_product(tensors) is None
