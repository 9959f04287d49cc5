import torch

from zoo.data import moves


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def disc(count: int = 8) -> torch.Tensor:
    """Black discs in the middle of white pictures, uint8 (N, 64, 64, 3)."""
    away = torch.arange(64) - 31.5
    inside = away[:, None] ** 2 + away[None, :] ** 2 < 15**2
    picture = torch.where(inside, 0, 255).byte()[..., None].expand(64, 64, 3)
    return picture.expand(count, 64, 64, 3)


def test_not_moved_at_all_is_the_picture_itself() -> None:
    ink = torch.rand(4, 3, 16, 16, generator=generator())
    assert torch.allclose(moves.move(ink, (1.0, 1.0), 0.0, generator()), ink, atol=1e-5)


def test_moved_pictures_keep_their_ground_and_most_of_their_ink() -> None:
    moved = moves.moved(disc(64), generator())
    assert moved.shape == (64, 64, 64, 3)
    assert moved.dtype == torch.uint8
    assert (moved[:, 0] == 255).all()
    ink = (255 - moved.float()).sum(dim=(1, 2, 3)) / (255 - disc(1).float()).sum()
    assert (ink > 0.8**2).all()
    assert (ink < 1.2**2).all()


def test_pictures_go_their_own_ways_and_not_far() -> None:
    moved = 255 - moves.moved(disc(64), generator()).float()[..., 0]
    mass = moved.sum(dim=(1, 2))
    place = torch.arange(64).float()
    x = (moved.sum(1) * place).sum(1) / mass - 31.5
    assert 1.0 < x.abs().max() <= 0.05 * 64 * 1.15
    assert x.std() > 0.5


def test_the_same_seed_moves_the_same_way() -> None:
    assert torch.equal(moves.moved(disc(), generator()), moves.moved(disc(), generator()))
    assert not torch.equal(moves.moved(disc(), generator()), moves.moved(disc(), generator(1)))
