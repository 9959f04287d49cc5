from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sdpack.evaluate.clip import panel_of
from sdpack.evaluate.resnet_judge import ResnetConfig, ResnetJudge, prepared
from transformers import PreTrainedTokenizerFast

from zoo import parts


@pytest.fixture(scope="module")
def judge() -> ResnetJudge:
    torch.manual_seed(0)
    made = ResnetJudge(ResnetConfig(vocab_size=3072, text_width=16))
    made.eval()
    return made


def images(count: int, side: int = 64) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, side, side, 3)).astype(np.uint8))


@torch.no_grad()
def test_images_of_any_size_become_unit_vectors(judge: ResnetJudge) -> None:
    for side in (32, 64, 100):
        rows = judge.embed_features(judge.features(images(2, side)))
        assert rows.shape == (2, 128)
        assert torch.allclose(rows.norm(dim=-1), torch.ones(2))


@torch.no_grad()
def test_white_is_zero_and_nothing_is_added_to_it() -> None:
    white = torch.full((1, 64, 64, 3), 255, dtype=torch.uint8)
    assert not prepared(white).any()


@torch.no_grad()
def test_padding_does_not_change_the_vector_of_a_text(judge: ResnetJudge) -> None:
    ids = torch.tensor([[5, 6, 7]])
    padded = torch.tensor([[5, 6, 7, 1, 1]])
    alone = judge.embed_texts(ids, torch.ones_like(ids))
    beside = judge.embed_texts(padded, torch.tensor([[1, 1, 1, 0, 0]]))
    assert torch.allclose(alone, beside, atol=1e-6)
    other = judge.embed_texts(torch.tensor([[7, 6, 5]]), torch.ones_like(ids))
    assert not torch.allclose(alone, other, atol=1e-3)


@torch.no_grad()
def test_a_saved_judge_is_loaded_by_its_folder(judge: ResnetJudge, tmp_path: Path) -> None:
    judge.save_pretrained(tmp_path)
    panel = panel_of(tmp_path, parts.verify("tokenizer"))
    found = panel.embed_features(panel.features(images(3)))
    assert torch.allclose(found, judge.embed_features(judge.features(images(3))), atol=1e-5)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(parts.verify("tokenizer"))
    encoded = tokenizer(["noto, pizza"], return_tensors="pt")
    wanted = judge.embed_texts(encoded["input_ids"], encoded["attention_mask"])
    assert torch.allclose(panel.embed_texts(["noto, pizza"]), wanted, atol=1e-5)
