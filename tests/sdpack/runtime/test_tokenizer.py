from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from diffusers.loaders import TextualInversionLoaderMixin
from hypothesis import given
from hypothesis import strategies as st
from sdpack.errors import BundleError, PromptError
from sdpack.runtime.tokenizer import PromptTokenizer
from transformers import PreTrainedTokenizerFast

ZOO = Path(__file__).parents[3] / "zoo" / "parts" / "tokenizer"
ours = PromptTokenizer(ZOO)
theirs = PreTrainedTokenizerFast.from_pretrained(ZOO)


@given(st.lists(st.text(max_size=60), min_size=1, max_size=3))
def test_ids_are_those_of_transformers(prompts: list[str]) -> None:
    wanted = theirs(prompts, padding="max_length", truncation=True, max_length=16)["input_ids"]
    assert np.array_equal(ours.ids(prompts), np.array(wanted))


VECTORS = ("mystyle", "mystyle_1", "mystyle_2", "<cat-toy>", "<cat-toy>_1", "alone")


@pytest.fixture(scope="module")
def inverted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer as diffusers leaves it once embeddings with 3, 2 and 1 vectors were loaded."""
    folder = tmp_path_factory.mktemp("inverted")
    changed = PreTrainedTokenizerFast.from_pretrained(ZOO)
    changed.add_tokens(list(VECTORS))
    changed.save_pretrained(folder)
    return folder


words = st.sampled_from([*VECTORS, "MyStyle", "xmystyle", "a", "red,", "pizza", "mystyle!"])


@given(st.lists(words, max_size=12).map(" ".join))
def test_a_token_of_several_vectors_is_read_as_diffusers_reads_it(
    inverted: Path, prompt: str
) -> None:
    theirs = PreTrainedTokenizerFast.from_pretrained(inverted)
    expanded = TextualInversionLoaderMixin().maybe_convert_prompt(prompt, theirs)
    if {"mystyle", "mystyle_1"} <= set(theirs.tokenize(prompt)):
        return  # diffusers' answer then depends on the order of a set
    wanted = theirs([expanded], padding="max_length", truncation=True, max_length=16)["input_ids"]
    assert PromptTokenizer(inverted).ids([prompt]).tolist() == wanted


def test_a_token_of_several_vectors_is_as_long_as_they_are(inverted: Path) -> None:
    tokenizer = PromptTokenizer(inverted)
    once = tokenizer.tokens(["pizza"])[1].sum() - tokenizer.tokens([""])[1].sum()
    added = tokenizer.tokens(["mystyle"])[1].sum() - tokenizer.tokens([""])[1].sum()
    assert added >= 3 >= once
    assert tokenizer.read("alone " * 4) == "alone " * 4
    written_out = "mystyle mystyle_1 mystyle_2 " * 6
    assert written_out.startswith(tokenizer.read("mystyle " * 6))


def test_a_prompt_too_long_to_be_read_is_told() -> None:
    assert ours.read("noto, pizza") == "noto, pizza"
    assert ours.read("noto, " + "pizza " * 20) != "noto, " + "pizza " * 20


def test_a_prompt_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(PromptError, match="UTF-8"):
        ours.ids([b"noto, \xff".decode(errors="surrogateescape")])


def test_no_prompts_give_no_rows() -> None:
    assert ours.ids([]).shape == (0, 16)


@pytest.mark.parametrize(
    "damage", ["missing", "cut short", "no length", "endless", "unknown padding"]
)
def test_a_damaged_tokenizer_is_refused(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "tokenizer"
    shutil.copytree(ZOO, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    if damage == "endless":
        config["model_max_length"] = 1e30
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    elif damage == "missing":
        (folder / "tokenizer.json").unlink()
    elif damage == "cut short":
        text = (folder / "tokenizer.json").read_text()
        (folder / "tokenizer.json").write_text(text[: len(text) // 2])
    elif damage == "no length":
        del config["model_max_length"]
    else:
        config["pad_token"] = "<nothing>"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match="tokenizer"):
        PromptTokenizer(folder)


def test_memory_does_not_grow_with_prompts() -> None:
    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    tokenizer = PromptTokenizer(ZOO)
    tokenizer.ids([f"noto, pizza {n * 0.7919}" for n in range(100)])
    before = resident_bytes()
    for number in range(8000):
        tokenizer.ids([f"noto, pizza {number * 0.6180339887}"])
    assert resident_bytes() - before < 2**20
