"""The text around prompts, and the tokens of it that a denoiser does not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.documents.conditioning import Conditioning
from sdpack.domain.placement import Role
from sdpack.errors import BundleError
from sdpack.runtime.prompt_template import NO_TEMPLATE, TEMPLATE_FILE, PromptTemplate, template_of
from sdpack.runtime.tokenizer import PromptTokenizer
from sdpack.runtime.truncation import truncations

from tests.e2e.language_families import gemma_tokenizer, qwen_tokenizer

CHAT = PromptTemplate(prefix="<|im_start|>user\n", suffix="<|im_end|>\n")
INSTRUCTION = PromptTemplate(
    prefix="Be brief. ", first_dropped=1, stop_dropped=9, plain_negative=True
)


def tokenizer(folder: Path, template: PromptTemplate, length: int) -> PromptTokenizer:
    made = qwen_tokenizer() if template is CHAT else gemma_tokenizer()
    made.save_pretrained(folder)
    (folder / TEMPLATE_FILE).write_text(template.model_dump_json())
    return PromptTokenizer(folder, length)


def test_a_prompt_is_read_inside_its_template(tmp_path: Path) -> None:
    read = tokenizer(tmp_path, CHAT, 40)
    theirs = qwen_tokenizer()
    text = "<|im_start|>user\na red cat<|im_end|>\n"
    wanted = theirs(text, padding="max_length", max_length=40).input_ids
    assert read.ids(["a red cat"]).tolist() == [wanted]
    assert read.kept(1) is None


def test_only_a_prompt_gets_an_instruction_and_its_tokens_are_dropped(tmp_path: Path) -> None:
    read = tokenizer(tmp_path, INSTRUCTION, 12)
    assert read.length == 12 + 8
    ids, mask = read.tokens(["bad", "a cat"], negatives=1)
    kept = read.kept(2, negatives=1)
    assert kept is not None
    theirs = gemma_tokenizer()
    plain, whole = theirs("bad").input_ids, theirs("Be brief. a cat").input_ids
    negative, prompt = np.take_along_axis(ids, kept, 1)
    assert negative[: len(plain)].tolist() == plain
    assert prompt[: len(whole) - 8].tolist() == [whole[0], *whole[9:]]
    assert np.take_along_axis(mask, kept, 1).sum(1).tolist() == [len(plain), len(whole) - 8]


@given(
    length=st.integers(1, 40),
    first=st.integers(0, 20),
    dropped=st.integers(0, 20),
    negative=st.booleans(),
)
def test_all_tokens_but_the_dropped_are_kept_in_order(
    length: int, first: int, dropped: int, negative: bool
) -> None:
    first = min(first, length)
    template = PromptTemplate(first_dropped=first, stop_dropped=first + dropped)
    kept = template.kept(length + dropped, negative)
    left_out = set(range(first, first + dropped))
    assert kept.tolist() == [n for n in range(length + dropped) if n not in left_out]


def test_the_part_of_a_prompt_that_is_read_is_told_without_the_template(tmp_path: Path) -> None:
    read = tokenizer(tmp_path, CHAT, 16)
    prompt = "a cat on a mat, with a hat"
    part = read.read(prompt)
    assert prompt.startswith(part)
    assert 0 < len(part) < len(prompt)
    assert PromptTokenizer(tmp_path, 60).read(prompt) == prompt


def test_a_negative_prompt_has_all_tokens_for_itself(tmp_path: Path) -> None:
    read = tokenizer(tmp_path, INSTRUCTION, 12)
    prompt = "a dog and a cat"
    assert read.read(prompt, negative=True) == prompt
    assert read.read(prompt) != prompt
    (told,) = truncations({Role.TEXT_ENCODER: read}, Conditioning(), prompt)
    assert told.tokens == 12
    assert truncations({Role.TEXT_ENCODER: read}, Conditioning(), prompt, negative=True) == []


def test_a_template_shorter_than_its_text_reads_nothing_of_a_prompt(tmp_path: Path) -> None:
    assert tokenizer(tmp_path, CHAT, 3).read("a cat") == ""


def test_a_damaged_template_is_named(tmp_path: Path) -> None:
    assert template_of(tmp_path) == NO_TEMPLATE
    (tmp_path / TEMPLATE_FILE).write_text('{"prefix": 3}')
    with pytest.raises(BundleError, match=TEMPLATE_FILE):
        template_of(tmp_path)
