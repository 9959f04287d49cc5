"""The tokenizer of CLIP, from the vocabulary that packages of CLIP come with."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path

from sdpack.errors import SourceError

VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"
PACKAGES = ("open_clip", "clip")  # modules of open_clip_torch, and of OpenAI's CLIP
PIECES = 49408  # single bytes, the same at the end of a word, merges, and the ends of a text
BYTES = 256
ENDS = ("<|startoftext|>", "<|endoftext|>")
HOW_TO_INSTALL = "pip install --no-deps open_clip_torch"


def find_vocabulary() -> Path | None:
    """Return CLIP's vocabulary in an installed package; the package is not imported."""
    for module in PACKAGES:
        spec = importlib.util.find_spec(module)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            path = Path(folder) / VOCABULARY_FILE
            if path.is_file():
                return path
    return None


def write_vocabulary(vocabulary: Path, folder: Path) -> None:
    """Write vocab.json and merges.txt of CLIP's tokenizer (Radford et al. 2021).

    Args:
        vocabulary: a gzip file whose first line is a comment; each other line is a merge, and only
            as many are used as CLIP has pieces.
        folder: the folder to write into.

    Raises:
        SourceError: the vocabulary is damaged.
    """
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    merges = _merges(vocabulary)
    letters = list(bytes_to_unicode().values())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    pieces += ["".join(merge.split()) for merge in merges]
    numbers = {piece: number for number, piece in enumerate([*pieces, *ENDS])}
    if len(numbers) != PIECES:
        raise SourceError(f"{vocabulary} does not have the pieces of CLIP; install it again")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(numbers, ensure_ascii=False), encoding="utf-8")
    text = "\n".join(["#version: 0.2", *merges]) + "\n"
    (folder / "merges.txt").write_text(text, encoding="utf-8")


def _merges(vocabulary: Path) -> list[str]:
    count = PIECES - 2 * BYTES - len(ENDS)
    try:
        with gzip.open(vocabulary, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as cause:
        raise SourceError(f"{vocabulary} cannot be read ({cause}); install it again") from cause
    merges = lines[1 : count + 1]
    if len(merges) != count or any(len(merge.split()) != 2 for merge in merges):
        raise SourceError(f"{vocabulary} does not have the merges of CLIP; install it again")
    return merges
