from __future__ import annotations

import json
import shutil
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from sdpack.documents.conditioning import Conditioning
from sdpack.domain.placement import Role
from sdpack.runtime.tokenizer import PromptTokenizer
from sdpack.runtime.truncation import Truncation, truncations
from transformers import PreTrainedTokenizerFast

ZOO = Path(__file__).parents[3] / "zoo" / "parts" / "tokenizer"
THEIRS = PreTrainedTokenizerFast.from_pretrained(ZOO)
SHORT, LONG = PromptTokenizer(ZOO), PromptTokenizer(ZOO, 40)
BOTH = {Role.TEXT_ENCODER_2: LONG, Role.TEXT_ENCODER: SHORT}
WORDS = "noto, " + "pizza " * 50


def test_a_prompt_that_is_read_to_its_end_is_not_truncated() -> None:
    assert truncations(BOTH, Conditioning(), "noto, pizza") == []
    assert truncations(BOTH, Conditioning(), "") == []


def test_each_encoder_stops_where_its_own_tokens_end() -> None:
    first, second = truncations(BOTH, Conditioning(), WORDS)
    assert (first.role, first.tokens) == (Role.TEXT_ENCODER, 16)
    assert (second.role, second.tokens) == (Role.TEXT_ENCODER_2, 40)
    assert WORDS.startswith(second.read)
    assert second.read.startswith(first.read)
    assert len(second.read) > len(first.read)
    middle = first.read + " pizza"
    assert [one.role for one in truncations(BOTH, Conditioning(), middle)] == [Role.TEXT_ENCODER]


def test_it_is_told_where_reading_stops() -> None:
    told = str(Truncation(Role.TEXT_ENCODER, 77, "a " * 50 + "red heart"))
    assert told.startswith("truncated: text_encoder reads 77 tokens and stops after ")
    assert told.endswith("red heart'")
    assert len(told) < 120
    assert "before its first word" in str(Truncation(Role.TEXT_ENCODER, 2, ""))


def test_small_letters_are_what_is_read_where_the_denoiser_wants_them() -> None:
    (one,) = truncations(
        {Role.TEXT_ENCODER: SHORT}, Conditioning(lowercase=True), "  NOTO, " + "Pizza " * 50
    )
    assert one.read.startswith("noto, pizza")


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=120))
def test_what_is_read_is_where_the_tokens_of_transformers_end(prompt: str) -> None:
    read = SHORT.read(prompt)
    whole = THEIRS(prompt, return_offsets_mapping=True)["offset_mapping"]
    kept = THEIRS(prompt, truncation=True, max_length=16, return_offsets_mapping=True)
    if len(whole) <= 16:
        assert read == prompt
    else:
        assert read == prompt[: max(end for _, end in kept["offset_mapping"])]


def test_nothing_is_read_where_there_is_no_token_to_spare(tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(ZOO, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 2}))
    assert PromptTokenizer(folder).read("noto, pizza") == ""
