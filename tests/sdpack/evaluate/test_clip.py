"""A tiny random CLIP as the judge, beside transformers' own CLIPScore arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sdpack.errors import SourceError
from sdpack.evaluate.clip import panel_of
from sdpack.evaluate.metrics import similarity
from transformers import CLIPConfig, CLIPModel

from tests.e2e import families

TEXTS = ["a red cat", "a dog on a mat"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    text = {
        "vocab_size": families.CLIP_VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": families.CLIP_TOKENS,
        "bos_token_id": 518,
        "eos_token_id": 519,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    CLIPModel(config).save_pretrained(folder)
    families.clip_tokenizer().save_pretrained(folder)
    return folder


def test_similarity_is_clip_s_cosine(folder: Path) -> None:
    pictures = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    panel = panel_of(folder, folder)
    seen = similarity(panel, panel.embed_features(panel.features(pictures)), TEXTS)
    model = CLIPModel.from_pretrained(folder).eval()
    tokens = families.clip_tokenizer()(TEXTS, padding=True, return_tensors="pt")
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    spread = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = ((pictures / 255 - mean) / spread).permute(0, 3, 1, 2)
    with torch.no_grad():
        said = model(**tokens, pixel_values=pixels)
        wanted = (said.logits_per_image / model.logit_scale.exp()).diagonal()
    assert seen == pytest.approx(wanted.numpy(), abs=1e-5)


def test_pictures_of_any_size_are_judged(folder: Path) -> None:
    panel = panel_of(folder, folder)
    features = panel.features(torch.zeros(3, 48, 80, 3, dtype=torch.uint8))
    assert features.shape == (3, 12)
    assert np.isfinite(features.numpy()).all()


def test_a_folder_without_a_judge_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no supported judge"):
        panel_of(tmp_path, folder)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(SourceError, match="holds no supported judge"):
        panel_of(tmp_path, folder)
