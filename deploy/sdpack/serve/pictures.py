"""Pictures as files."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

QUALITY = 92  # of lossy formats, of 100


class Encoding(StrEnum):
    """Kinds of picture files."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def media_type(self) -> str:
        return f"image/{self.value}"


@dataclass(frozen=True)
class Format:
    """How a picture is written.

    Attributes:
        quality: of a lossy encoding, 0 to 100; None for the usual one.
    """

    encoding: Encoding = Encoding.PNG
    quality: int | None = None


def encode(picture: NDArray[np.uint8], form: Format, says: Mapping[str, Any]) -> bytes:
    """A picture uint8 (H, W, 3) as a file.

    Args:
        says: how it was made; a PNG carries it as the text "parameters".
    """
    image, file = Image.fromarray(picture), io.BytesIO()
    if form.encoding is Encoding.PNG:
        notes = PngInfo()
        notes.add_itxt("parameters", json.dumps(says, ensure_ascii=False))
        image.save(file, "PNG", pnginfo=notes, compress_level=4)
    else:
        quality = QUALITY if form.quality is None else form.quality
        image.save(file, form.encoding.value.upper(), quality=quality)
    return file.getvalue()
