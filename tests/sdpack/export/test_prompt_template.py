"""The text around prompts is that of diffusers' pipelines."""

from __future__ import annotations

from pathlib import Path

import pytest
from sdpack.documents.conditioning import Family
from sdpack.errors import SourceError
from sdpack.export.prompt_template import TEMPLATED, family_template

from tests.e2e.language_families import gemma_tokenizer, qwen_tokenizer


@pytest.mark.parametrize("family", sorted(set(Family) - TEMPLATED))
def test_other_families_put_nothing_around_prompts(family: Family, tmp_path: Path) -> None:
    template = family_template(family, tmp_path)
    assert template.around("a cat") == "a cat"
    assert not template.dropped


def test_klein_closes_a_thought_that_z_image_leaves_open(tmp_path: Path) -> None:
    qwen_tokenizer().save_pretrained(tmp_path)
    question = "<|im_start|>user\na {cat}<|im_end|>\n<|im_start|>assistant\n"
    assert family_template(Family.Z_IMAGE, tmp_path).around("a {cat}") == question
    closed = f"{question}<think>\n\n</think>\n\n"
    assert family_template(Family.FLUX2, tmp_path).around("a {cat}") == closed


def test_of_sanas_instruction_the_denoiser_reads_the_first_and_the_last_token(
    tmp_path: Path,
) -> None:
    made = gemma_tokenizer()
    made.save_pretrained(tmp_path)
    template = family_template(Family.SANA, tmp_path)
    assert template.prefix.endswith("User Prompt: ")
    assert template.around("bad", negative=True) == "bad"
    whole = len(made.encode(template.prefix))
    assert template.dropped == whole - 2


def test_of_qwen_images_request_the_denoiser_reads_only_the_end(tmp_path: Path) -> None:
    template = family_template(Family.QWEN_IMAGE, tmp_path)
    assert template.prefix.startswith("<|im_start|>system\nDescribe the image")
    assert template.around("bad", negative=True).endswith(
        "<|im_start|>user\nbad<|im_end|>\n<|im_start|>assistant\n"
    )
    assert list(template.kept(40)) == [34, 35, 36, 37, 38, 39]


def test_ovis_images_request_is_inside_the_users_message(tmp_path: Path) -> None:
    qwen_tokenizer().save_pretrained(tmp_path)
    template = family_template(Family.OVIS_IMAGE, tmp_path)
    assert template.prefix.startswith("<|im_start|>user\nDescribe the image")
    assert template.suffix.endswith("<think>\n\n</think>\n\n")
    assert template.dropped == 28


def test_a_tokenizer_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    gemma_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(SourceError, match="chat_template"):
        family_template(Family.Z_IMAGE, tmp_path)
