from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.data import dataset as data
from zoo.data.dataset import STYLES, Dataset, Row
from zoo.errors import DataError


def rows(labels: int = 400) -> list[Row]:
    return [
        Row(f"{n:X}", style, f"label {n}", ("key",), "objects", "tool")
        for n in range(labels)
        for style in STYLES
    ]


def test_splits_are_disjoint_and_near_their_shares() -> None:
    split = data.assign_splits(rows())
    labels = {name: {r.caption for r in split if r.split == name} for name in data.SPLITS}
    pairs = sum(r.split == "unseen_pairs" for r in split) / len(split)
    assert not labels["unseen_labels"] & (labels["train"] | labels["unseen_pairs"])
    assert labels["unseen_pairs"] <= labels["train"]
    assert 0.07 < pairs < 0.13
    assert 0.05 < len(labels["unseen_labels"]) / 400 < 0.11


@given(st.permutations(rows(12)))
def test_a_row_keeps_its_split_whatever_the_order(shuffled: list[Row]) -> None:
    assert set(data.assign_splits(shuffled)) == set(data.assign_splits(rows(12)))


def test_splits_of_known_labels_never_change() -> None:
    known = [Row("0", "noto", label, (), "objects", "tool") for label in ("pizza", "memo")]
    assert [r.split for r in data.assign_splits(known)] == ["train", "unseen_labels"]


@given(st.text(max_size=20), st.sets(st.sampled_from(STYLES), min_size=1))
def test_every_label_leaves_something_to_learn_from(label: str, styles: set[data.Style]) -> None:
    given_rows = [Row("0", style, label, (), "objects", "tool") for style in styles]
    split = data.assign_splits(given_rows)
    if any(r.split == "unseen_labels" for r in split):
        assert any(not r.judge_test for r in split)
    else:
        assert any(r.split == "train" for r in split)


def test_a_single_style_is_never_an_unseen_pair() -> None:
    alone = [Row("0", "noto", f"label {n}", (), "objects", "tool") for n in range(300)]
    assert not any(r.split == "unseen_pairs" for r in data.assign_splits(alone))


def test_code_key_drops_the_presentation_selector() -> None:
    assert data.code_key("2764-fe0f-200d-1f525") == "2764-200D-1F525"


def test_a_transparent_picture_is_put_on_white(tmp_path: Path) -> None:
    from PIL import Image

    half = np.zeros((64, 64, 4), np.uint8)
    half[:, :32] = (255, 0, 0, 255)
    Image.fromarray(half).save(tmp_path / "half.webp", lossless=True)
    picture = data.render(tmp_path / "half.webp")
    assert (picture[:, :32] == (255, 0, 0)).all()
    assert (picture[:, 32:] == 255).all()


def test_a_saved_data_set_is_read_back_whole(tmp_path: Path) -> None:
    some = tuple(data.assign_splits(rows(2)))
    images = np.random.default_rng(0).integers(256, size=(len(some), 64, 64, 3), dtype=np.uint8)
    data._save(Dataset(some, images), tmp_path / "d.npz")
    read = data._read(tmp_path / "d.npz")
    assert read.rows == some
    assert read.digest == Dataset(some, images).digest


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    data._save(Dataset(tuple(rows(1)), np.zeros((6, 64, 64, 3), np.uint8)), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"d\.npz is damaged"):
        data._read(path)
