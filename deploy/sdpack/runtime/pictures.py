"""Pictures as files that say how they were made.

PNG has texts by key: `parameters`, which is AUTOMATIC1111's, and `sdpack`, which is JSON. JPEG and
WebP have EXIF: the first goes into UserComment, where the web UI puts it, and the second into
MakerNote, which is for the program that made the file.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from sdpack.errors import InputError
from sdpack.runtime.exif import UNICODE, exif_bytes
from sdpack.runtime.infotext import GenerationParameters, program_version

QUALITY = 92  # of lossy formats, of 100
PARAMETERS, OWN = "parameters", "sdpack"
MAKER = b"sdpack\0"
MOST_EXIF = 65533  # bytes that one marker of a JPEG file holds


class PictureFileError(InputError):
    """A file that holds no picture of a known format."""


class Encoding(StrEnum):
    """Kinds of picture files."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def media_type(self) -> str:
        return f"image/{self.value}"


SUFFIXES = {
    ".png": Encoding.PNG,
    ".jpg": Encoding.JPEG,
    ".jpeg": Encoding.JPEG,
    ".webp": Encoding.WEBP,
}


def encoding_of(path: Path) -> Encoding | None:
    """The format a file's suffix names, in upper or lower case; None for any other suffix."""
    return SUFFIXES.get(path.suffix.lower())


@dataclass(frozen=True)
class Format:
    """How a picture is written.

    Attributes:
        quality: of a lossy encoding, 0 to 100; None for the usual one.
    """

    encoding: Encoding = Encoding.PNG
    quality: int | None = None


def encode(picture: NDArray[np.uint8], form: Format, made: GenerationParameters) -> bytes:
    """A picture uint8 (H, W, 3) as a file that says how it was made.

    A JPEG file has room for 64 KiB of EXIF. Of longer prompts it keeps the web UI's text alone, or
    nothing if that is too long too.
    """
    image, file = Image.fromarray(picture), io.BytesIO()
    text, own = _storable(made.infotext()), json.dumps(made.to_json())
    if form.encoding is Encoding.PNG:
        notes = PngInfo()
        notes.add_text(PARAMETERS, text)
        notes.add_text(OWN, own)
        image.save(file, "PNG", pnginfo=notes, compress_level=4)
    else:
        quality = QUALITY if form.quality is None else form.quality
        exif = exif_bytes(program_version(), text, MAKER + own.encode("ascii"))
        if form.encoding is Encoding.JPEG and len(exif) > MOST_EXIF:
            exif = exif_bytes(program_version(), text)
            exif = exif if len(exif) <= MOST_EXIF else b""
        image.save(file, form.encoding.upper(), quality=quality, exif=exif)
    return file.getvalue()


def _storable(text: str) -> str:
    """A text without what UTF-8 and UTF-16 cannot say: halves of surrogate pairs, which a command
    line makes of bytes that are not UTF-8.
    """
    return text.encode(errors="replace").decode()


def read_texts(file: bytes) -> dict[str, str]:
    """The texts of a picture file by their keys; its pixels are not decoded.

    Raises:
        PictureFileError: it is no PNG, JPEG or WebP file, or it is damaged.
    """
    try:
        with Image.open(io.BytesIO(file), formats=[one.value.upper() for one in Encoding]) as image:
            found = {str(key): text for key, text in image.info.items() if isinstance(text, str)}
            return found | _exif_texts(image.getexif().get_ifd(ExifTags.IFD.Exif))
    except UnidentifiedImageError as cause:
        raise PictureFileError("not a PNG, JPEG or WebP file") from cause
    except Exception as cause:  # Pillow raises whatever a damaged file makes its parsers raise
        raise PictureFileError(f"the picture file is damaged ({cause})") from cause


def _exif_texts(exif: Mapping[int, object]) -> dict[str, str]:
    found = {}
    comment, maker = exif.get(ExifTags.Base.UserComment), exif.get(ExifTags.Base.MakerNote)
    if isinstance(comment, bytes) and comment.startswith(UNICODE):
        found[PARAMETERS] = comment.removeprefix(UNICODE).decode("utf-16-be", "replace")
    elif isinstance(comment, bytes) and comment[:8].strip(b"\0") in (b"", b"ASCII"):
        found[PARAMETERS] = comment[8:].decode("utf-8", "replace").rstrip("\0")
    if isinstance(maker, bytes) and maker.startswith(MAKER):
        found[OWN] = maker.removeprefix(MAKER).decode("ascii", "replace")
    return found
