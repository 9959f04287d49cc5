"""Image files with generation parameters.

PNG files have two text entries: `parameters` is AUTOMATIC1111's text, and `sdpack` is JSON. JPEG
and WebP files have EXIF metadata: the text is in UserComment, where the web UI writes it, and the
JSON in MakerNote, which is reserved for the writing program.
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

QUALITY = 92  # default for lossy formats, from 0 to 100
PARAMETERS, OWN = "parameters", "sdpack"
MAKER = b"sdpack\0"
MOST_EXIF = 65533  # maximum bytes of one marker of a JPEG file


class PictureFileError(InputError):
    """A file is not an image in a supported format."""


class Encoding(StrEnum):
    """Formats of image files."""

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
    """Return the format of a file suffix, regardless of case; None for any other suffix."""
    return SUFFIXES.get(path.suffix.lower())


@dataclass(frozen=True)
class Format:
    """The format of an image file.

    Attributes:
        quality: quality of a lossy encoding, 0 to 100; None for the default.
    """

    encoding: Encoding = Encoding.PNG
    quality: int | None = None


def encode(picture: NDArray[np.uint8], form: Format, made: GenerationParameters) -> bytes:
    """Encode an image, uint8 (H, W, 3), as a file with its generation parameters.

    EXIF metadata of a JPEG file is limited to 64 KiB. If it is longer, only the web UI's text is
    written, or nothing if even that is too long.
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
    """Replace lone surrogates, which stand for bytes of a command line that are not UTF-8."""
    return text.encode(errors="replace").decode()


def read_texts(file: bytes) -> dict[str, str]:
    """Return the texts of an image file by key, without decoding its pixels.

    Raises:
        PictureFileError: the file is not PNG, JPEG or WebP, or it is damaged.
    """
    try:
        with Image.open(io.BytesIO(file), formats=[one.value.upper() for one in Encoding]) as image:
            found = {str(key): text for key, text in image.info.items() if isinstance(text, str)}
            return found | _exif_texts(image.getexif().get_ifd(ExifTags.IFD.Exif))
    except UnidentifiedImageError as cause:
        raise PictureFileError("not a PNG, JPEG or WebP file") from cause
    except Exception as cause:  # Pillow's parsers raise many classes for damaged files
        raise PictureFileError(f"the image file is damaged ({cause})") from cause


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
