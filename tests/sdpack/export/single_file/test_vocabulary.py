from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from sdpack.errors import SourceError
from sdpack.export.single_file import vocabulary
from sdpack.export.single_file.vocabulary import PIECES, find_vocabulary, write_vocabulary
from transformers import CLIPTokenizer

MERGES = PIECES - 2 * 256 - 2


def write(path: Path, lines: list[str]) -> Path:
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def merges() -> list[str]:
    """As many merges as CLIP has: each joins the piece before it and one letter."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [f"{one} {two}" for one in letters for two in letters]
    words = ["".join(pair.split()) for pair in pairs]
    while len(pairs) < MERGES:
        word = words[len(pairs) - 26 * 26]
        pairs += [f"{word} {letter}" for letter in letters]
        words += [word + letter for letter in letters]
    return pairs[:MERGES]


def test_a_vocabulary_is_numbered_as_clip_numbers_it(tmp_path: Path) -> None:
    path = write(tmp_path / "v.gz", ["a comment", *merges(), "more merges", "than are used"])
    write_vocabulary(path, tmp_path / "tokenizer")
    numbers = json.loads((tmp_path / "tokenizer" / "vocab.json").read_text())
    # Of CLIP's published vocab.json: printable characters come before other bytes.
    assert (numbers["!"], numbers["a"], numbers["~"], numbers["!</w>"]) == (0, 64, 93, 256)
    assert numbers["aa"] == 512
    assert (numbers["<|startoftext|>"], numbers["<|endoftext|>"]) == (49406, 49407)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert tokenizer("aa").input_ids[0] == 49406


def test_a_damaged_vocabulary_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not have the merges of CLIP; install it again"):
        write_vocabulary(write(tmp_path / "v.gz", ["a comment", "a b"]), tmp_path)
    doubled = ["a b"] * MERGES
    with pytest.raises(SourceError, match="does not have the pieces of CLIP"):
        write_vocabulary(write(tmp_path / "v.gz", ["a comment", *doubled]), tmp_path)
    (tmp_path / "v.gz").write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"v\.gz cannot be read"):
        write_vocabulary(tmp_path / "v.gz", tmp_path)


def test_a_vocabulary_is_found_in_a_package_that_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "clip_for_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.setattr(vocabulary, "PACKAGES", ("clip_for_a_test",))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_vocabulary() is None
    (package / vocabulary.VOCABULARY_FILE).touch()
    assert find_vocabulary() == package / vocabulary.VOCABULARY_FILE
