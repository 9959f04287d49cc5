"""The real images that generated ones are compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdpack.documents.catalog_files import LocatedCatalog
from sdpack.errors import CatalogError


def real_images(located: LocatedCatalog, sheet: Path) -> NDArray[np.uint8]:
    """The real images of a catalog's prompts, cut from their sheet: uint8 (N, side, side, 3).

    Raises:
        CatalogError: the sheet cannot be read, or has fewer images than there are prompts.
    """
    quality, side = located.catalog.quality, located.catalog.image_size
    path, columns = located.path(sheet), quality.real_columns
    count = len(located.prompts(quality.prompts))
    try:
        pixels = np.asarray(Image.open(path).convert("RGB"))
    except (OSError, SyntaxError) as cause:
        raise CatalogError(f"{path} cannot be read ({cause}); restore it") from cause
    rows = pixels.shape[0] // side
    if pixels.shape[1] != columns * side or rows * columns < count:
        raise CatalogError(
            f"{path} is {pixels.shape[1]}x{pixels.shape[0]}, too small for {count} tiles of "
            f"{side}, {columns} per row; check quality.real_columns"
        )
    tiles = pixels[: rows * side].reshape(rows, side, columns, side, 3).swapaxes(1, 2)
    return tiles.reshape(-1, side, side, 3)[:count]
