"""Rotations in real numbers are those of complex ones."""

from __future__ import annotations

import torch
from sdpack.export.denoisers.rotary import Rotations, image_places, joined, text_places, turned


def tables() -> list[torch.Tensor]:
    angles = [torch.rand(9, pairs) * 6 for pairs in (2, 1, 1)]
    return [torch.polar(torch.ones_like(each), each) for each in angles]


def test_pairs_of_neighbours_are_rotated() -> None:
    complex_tables = tables()
    places = torch.randint(0, 9, (2, 5, 3))
    heads = torch.randn(2, 5, 3, 8)
    made = turned(heads, Rotations(complex_tables)(places))
    factors = torch.cat([table[places[..., n]] for n, table in enumerate(complex_tables)], dim=-1)
    pairs = torch.view_as_complex(heads.reshape(2, 5, 3, 4, 2)) * factors.unsqueeze(2)
    assert torch.allclose(made, torch.view_as_real(pairs).flatten(-2), atol=1e-6)


def test_an_image_begins_where_its_text_ends() -> None:
    start = torch.tensor([[3], [5]])
    places = image_places(2, 3, start)
    assert places.shape == (2, 6, 3)
    assert places[:, :, 0].tolist() == [[3] * 6, [5] * 6]
    assert places[0, :, 1:].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    words = text_places(torch.zeros(2, 4, 8), 1)
    assert words[1].tolist() == [[1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0]]


def test_rotations_of_two_groups_are_joined() -> None:
    rotations = Rotations(tables())
    first, second = (rotations(torch.randint(0, 9, (2, count, 3))) for count in (4, 2))
    cosines, sines = joined(first, second)
    assert cosines.shape == sines.shape == (2, 6, 1, 4)
    assert torch.equal(cosines[:, :4], first[0])
    assert torch.equal(sines[:, 4:], second[1])
