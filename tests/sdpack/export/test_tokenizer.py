"""Tokenizers as repositories keep them, read without transformers and by transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sdpack.errors import SourceError
from sdpack.export.tokenizer import CHECKED_TEXTS, convert_tokenizer
from sdpack.runtime.tokenizer import PromptTokenizer, is_complete

from tests.e2e import families


def sentencepiece(folder: Path) -> Path:
    """A T5's as its first repositories keep it: a sentencepiece model, and no tokenizer.json."""
    import sentencepiece

    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*CHECKED_TEXTS, "a red cat on the mat", "two dogs"] * 20),
        model_prefix=str(folder / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "model_max_length": 512}
    more = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, **more}))
    return folder


def bert(folder: Path) -> Path:
    """As BERT's repositories keep it: nothing says what texts are padded with."""
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", "cat"]
    pieces = [*words, *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    BertTokenizer(vocab=vocab).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 32}))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return folder


def test_a_sentencepiece_model_becomes_a_tokenizer(tmp_path: Path) -> None:
    source = sentencepiece(tmp_path / "t5")
    assert not is_complete(source, 20)
    convert_tokenizer(source, tmp_path / "made")
    made = PromptTokenizer(tmp_path / "made", 20)
    ids, mask = made.tokens(["a red cat", ""])
    assert ids[1, 0] == 1, "nothing but the end of the text"
    assert mask.sum(axis=1).tolist() == [(ids[0] != 0).sum(), 1]


def test_added_tokens_of_an_old_folder_are_kept(tmp_path: Path) -> None:
    """As older versions of transformers left a textual inversion: in a file of its own."""
    from transformers import CLIPTokenizer

    families.save_clip_tokenizer(tmp_path / "old")
    added = {"mystyle": 520, "mystyle_1": 521}
    (tmp_path / "old" / "added_tokens.json").write_text(json.dumps(added))
    convert_tokenizer(tmp_path / "old", tmp_path / "made")
    made = PromptTokenizer(tmp_path / "made")
    assert made.expansions == {"mystyle": "mystyle mystyle_1"}
    theirs = CLIPTokenizer.from_pretrained(tmp_path / "old")
    assert theirs.convert_tokens_to_ids(list(added)) == list(added.values())
    wanted = theirs("a mystyle mystyle_1 cat", padding="max_length", max_length=16).input_ids
    assert made.ids(["a mystyle cat"])[0].tolist() == wanted


def test_what_texts_are_padded_with_is_found_out(tmp_path: Path) -> None:
    source = bert(tmp_path / "bert")
    assert (source / "tokenizer.json").is_file()
    assert not is_complete(source)
    convert_tokenizer(source, tmp_path / "made")
    assert is_complete(tmp_path / "made")
    ids, mask = PromptTokenizer(tmp_path / "made").tokens(["cat"])
    assert ids.shape == (1, 32)
    assert ids[0, :4].tolist() == [2, 31, 3, 0]
    assert mask[0].sum() == 3


def test_what_is_no_tokenizer_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"empty has no tokenizer_config.json, which says what"):
        convert_tokenizer(tmp_path / "empty", tmp_path / "made")
    (tmp_path / "empty" / "tokenizer_config.json").write_text("{}")
    with pytest.raises(SourceError, match="holds no readable tokenizer") as caught:
        convert_tokenizer(tmp_path / "empty", tmp_path / "made")
    assert "\n" not in str(caught.value)
