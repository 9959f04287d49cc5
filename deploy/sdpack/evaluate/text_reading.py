"""Whether the text that a prompt asks for can be read in its image, by a character reader (OCR).

The score is one minus the character error rate: the number of characters to insert, delete or
replace in what was read, divided by those of the text (at most 1). Case, spaces and line breaks do
not count.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from sdpack.domain.arrays import Float64Array
from sdpack.errors import MissingPackageError
from sdpack.runtime.pipeline import Pictures
from sdpack.store.artifacts import digest

READ_TEXT = "text that can be read"  # kind of the rows with these scores
PACKAGE = "rapidocr-onnxruntime"

Read = Callable[[Any], str]
"""Reads the text in an image, uint8 (H, W, 3)."""


class TextReading:
    """Scores images by the text in them; images of prompts without text score 0.

    Args:
        wanted: by prompt, the text that its image should show.
        read: default: RapidOCR with its own models (PP-OCRv4), in ONNX Runtime on the CPU.
    """

    def __init__(self, wanted: Mapping[str, str], read: Read | None = None) -> None:
        self._wanted = wanted
        self._read = read

    @property
    def content(self) -> str:
        """One hash of the reader and the texts.

        Raises:
            MissingPackageError: the reader is not installed.
        """
        return digest({"reader": installed_reader(), "wanted": sorted(self._wanted.items())})

    def scores(self, pictures: Pictures, prompts: Sequence[str]) -> Float64Array:
        """Return how well the text of each prompt can be read in its image, uint8 (N, H, W, 3)."""
        read = self._read or rapid_ocr()
        found = np.zeros(len(pictures))
        for place, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
            wanted = self._wanted.get(prompt)
            if wanted:
                found[place] = readability(read(picture), wanted)
        return found


def readability(read: str, wanted: str) -> float:
    """Return one minus the character error rate of what was read, at least 0."""
    from torchmetrics.functional.text import char_error_rate

    errors = char_error_rate([_plain(read)], [_plain(wanted)])
    return max(0.0, 1.0 - float(errors))


def _plain(text: str) -> str:
    return "".join(text.casefold().split())


@cache
def rapid_ocr() -> Read:
    """Return a function that reads images with RapidOCR; the lines it finds are joined in order.

    Raises:
        MissingPackageError: it is not installed, or a library that it needs.
    """
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as cause:
        raise MissingPackageError(PACKAGE, "ocr", "reading text in images") from cause
    engine = RapidOCR()

    def read(image: Any) -> str:
        lines, _ = engine(image[..., ::-1])  # it takes blue, green, red
        return " ".join(str(line[1]) for line in lines or ())

    return read


def installed_reader() -> str:
    """Return the package that reads, with its version.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"
    except importlib.metadata.PackageNotFoundError as cause:
        raise MissingPackageError(PACKAGE, "ocr", "reading text in images") from cause
