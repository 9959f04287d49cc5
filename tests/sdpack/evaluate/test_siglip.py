"""A tiny random SigLIP as the judge, beside transformers' own arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sdpack.evaluate.clip import panel_of
from sdpack.evaluate.metrics import similarity
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel

from tests.e2e.language_families import VOCABULARY, gemma_tokenizer

TEXTS = ["A red Cat", "a dog on a mat that is longer than the model reads"]
LENGTH = 24
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(0)
    text = {
        **SMALL,
        "num_attention_heads": 2,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": LENGTH,
        "projection_size": 16,
    }
    vision = {**SMALL, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    tokenizer: PreTrainedTokenizerFast = gemma_tokenizer()
    tokenizer.padding_side = "right"
    tokenizer.save_pretrained(folder)
    return folder


def test_similarity_is_the_cosine_of_the_model(folder: Path) -> None:
    pictures = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    panel = panel_of(folder, folder)
    seen = similarity(panel, panel.embed_features(panel.features(pictures)), TEXTS)
    model = SiglipModel.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    ids = tokenizer(
        [text.lower() for text in TEXTS],
        padding="max_length",
        max_length=LENGTH,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    assert ids.shape == (2, LENGTH)
    pixels = ((pictures / 255 - 0.5) / 0.5).permute(0, 3, 1, 2)
    with torch.no_grad():
        said = model(input_ids=ids, pixel_values=pixels)
    wanted = (said.logits_per_image - model.logit_bias) / model.logit_scale.exp()
    assert seen == pytest.approx(wanted.diagonal().detach().numpy(), abs=1e-5)


def test_pictures_of_any_size_are_judged(folder: Path) -> None:
    panel = panel_of(folder, folder)
    features = panel.features(torch.zeros(3, 48, 80, 3, dtype=torch.uint8))
    assert features.shape == (3, 16)
    assert features.isfinite().all()
