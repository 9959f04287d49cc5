from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sdpack.evaluate import judge

SMALL = judge.JudgeConfig(vocab_size=50, text_width=16, text_layers=1)


@pytest.fixture(scope="module")
def made() -> judge.Judge:
    """With weights large enough that a picture does not fade to zeros on its way."""
    torch.manual_seed(0)
    made: judge.Judge = judge.Judge(SMALL).eval()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return made


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_pictures_of_any_size_and_texts_become_unit_vectors_of_one_space(
    made: judge.Judge, size: tuple[int, int]
) -> None:
    pictures = torch.randint(0, 256, (1, *size, 3)).byte()
    with torch.no_grad():
        seen = made.embed_images(pictures)
        read = made.embed_texts(torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.long))
    assert seen.shape == (1, judge.EMBEDDING)
    assert read.shape == (1, judge.EMBEDDING)
    assert torch.cat([seen, read]).norm(dim=-1).numpy() == pytest.approx(1)


def test_padding_changes_no_text(made: judge.Judge) -> None:
    ids, mask = torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.long)
    padded = torch.tensor([[5, 6, 7, 9, 9]]), torch.tensor([[1, 1, 1, 0, 0]])
    with torch.no_grad():
        assert torch.allclose(made.embed_texts(*padded), made.embed_texts(ids, mask), atol=1e-6)


def test_a_picture_of_the_tower_s_own_size_is_only_scaled() -> None:
    pictures = torch.randint(0, 256, (1, judge.JUDGE_IMAGE_SIZE, judge.JUDGE_IMAGE_SIZE, 3)).byte()
    wanted = (pictures.permute(0, 3, 1, 2).float() - 127) / 128
    assert torch.allclose(judge.prepare(pictures), wanted, atol=1e-5)


def test_the_published_weights_are_taken_in_their_order_without_the_classifier() -> None:
    tower = judge.ImageTower()
    own = tower.state_dict()
    published = {f"layer{n}": torch.full_like(value, 3) for n, value in enumerate(own.values())}
    tower.load_pretrained({**published, "_fc.weight": torch.zeros(1000, judge.FEATURE_WIDTH)})
    assert all((value == 3).all() for value in tower.state_dict().values())
    published.popitem()
    with pytest.raises(ValueError, match="not an EfficientNet-Lite0"):
        tower.load_pretrained(published)


def test_contrastive_loss_is_least_when_pictures_meet_their_texts() -> None:
    eye, same = torch.eye(4), torch.eye(4, dtype=torch.bool)
    scale = torch.tensor(20.0)
    matched = judge.contrastive_loss(eye, eye, same, scale)
    assert matched < 1e-3
    assert judge.contrastive_loss(eye, eye.roll(1, 0), same, scale) > 10


def test_two_pictures_of_one_caption_are_no_mistake() -> None:
    rows = torch.eye(2)[[0, 0, 1]]
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    loss = judge.contrastive_loss(rows, rows, same, torch.tensor(30.0))
    # Two equal positives leave the entropy of a fair coin for those rows, and nothing else.
    assert loss.item() == pytest.approx(2 / 3 * torch.tensor(2.0).log().item(), abs=1e-3)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_the_loss_is_the_same_for_pictures_and_texts_exchanged(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    pictures, texts = torch.randn(2, 4, 8, generator=g)
    same, scale = torch.eye(4, dtype=torch.bool), torch.tensor(2.0)
    loss = judge.contrastive_loss(pictures, texts, same, scale)
    assert torch.allclose(loss, judge.contrastive_loss(texts, pictures, same, scale), rtol=1e-4)
