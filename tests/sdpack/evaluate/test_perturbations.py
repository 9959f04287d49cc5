from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.evaluate.perturbations import (
    PERTURBATIONS,
    Perturbation,
    changed_captions,
    wrong_captions,
)

RNG = np.random.default_rng(0)
SMOOTH = np.linspace(0, 255, 64, dtype=np.float32)
PICTURES = np.stack(
    [
        np.stack(np.broadcast_arrays(SMOOTH[:, None], SMOOTH[None, :], 255 - SMOOTH[:, None]), -1),
        RNG.integers(0, 256, (64, 64, 3)).astype(np.float32),
    ]
).astype(np.uint8)
WORDS = st.lists(st.sampled_from(["red", "green", "apple", "bicycle", "on", "snow,"]), min_size=1)


@pytest.mark.parametrize("change", PERTURBATIONS, ids=lambda change: change.name)
def test_a_perturbation_changes_an_image_a_little_and_keeps_its_shape(change: Perturbation) -> None:
    made = change.apply(PICTURES, np.random.default_rng(0))
    assert made.shape == PICTURES.shape
    assert made.dtype == np.uint8
    again = change.apply(PICTURES, np.random.default_rng(0))
    assert (made == again).all(), "the same generator gives the same images"
    apart = np.abs(made.astype(int) - PICTURES).mean(axis=(1, 2, 3))
    assert apart.max() > 0
    if change.is_damage:
        assert apart[0] < 40, "a smooth image still looks like itself"


def test_changes_do_what_their_names_say() -> None:
    by_name = {change.name: change.apply for change in PERTURBATIONS}
    rng = np.random.default_rng(0)
    grey = np.full((1, 64, 64, 3), 128, np.uint8)
    noisy = by_name["noise of standard deviation 12"](grey, rng).astype(float)
    assert noisy.std() == pytest.approx(12, rel=0.05)
    assert by_name["tint by 15 levels"](grey, rng)[0, 0, 0].tolist() == [143, 128, 113]
    assert (by_name["saturation times 0.6"](grey, rng) == grey).all()
    blocks = by_name["blocks of 6.2% of the side"](PICTURES, rng)
    tiles = blocks.reshape(2, 16, 4, 16, 4, 3)
    assert (tiles == tiles[:, :, :1, :, :1]).all()
    blurred = by_name["blur over 1.6% of the side"](PICTURES, rng)
    assert blurred[1].std() < PICTURES[1].std()
    assert (by_name["mirrored"](PICTURES, rng)[:, :, ::-1] == PICTURES).all()


@given(st.lists(WORDS, min_size=2, max_size=6), st.integers(0, 1000))
def test_captions_are_changed_into_others(lists: list[list[str]], seed: int) -> None:
    texts = [" ".join(words) for words in lists]
    changed = changed_captions(texts, np.random.default_rng(seed))
    for text, made in zip(texts, changed, strict=True):
        words, others = text.split(), made.split()
        assert len(words) == len(others)
        assert sum(a != b for a, b in zip(words, others, strict=True)) == 1
    for text, made in zip(texts, wrong_captions(texts, np.random.default_rng(seed)), strict=True):
        assert made != text


def test_a_known_change_of_a_caption_is_taken() -> None:
    known = {"a red cup and a blue bowl": "a blue cup and a red bowl"}
    texts = ["a red cup and a blue bowl", "a tall tree"]
    made = changed_captions(texts, np.random.default_rng(0), known)
    assert made[0] == "a blue cup and a red bowl"
    assert made[1] != texts[1]
