from __future__ import annotations

import torch

from zoo.training import damage


def ink(count: int = 10) -> torch.Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_image_is_damaged_and_the_given_ones_stay() -> None:
    given = ink()
    before = given.clone()
    found = damage.damaged(given, generator())
    assert found.shape == given.shape
    assert torch.equal(given, before)
    assert all(not torch.equal(one, other) for one, other in zip(found, given, strict=True))


def test_damage_is_small() -> None:
    apart = (damage.damaged(ink(), generator()) - ink()).flatten(1)
    assert float(apart.square().mean(1).sqrt().max()) < 0.4


def test_augmented_images_depend_on_the_generator_alone() -> None:
    one = damage.augmented(ink(), generator())
    assert torch.equal(one, damage.augmented(ink(), generator()))
    assert not torch.equal(one, damage.augmented(ink(), generator(2)))
    assert one.shape == ink().shape


def test_few_images_are_damaged_too() -> None:
    assert damage.damaged(ink(2), generator()).shape == (2, 3, 64, 64)
