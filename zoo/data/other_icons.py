"""Labelled images in two more styles, on which only the second judge is trained.

The icon sets name their icons after the emoji's label, without its spaces and marks. An icon is
used if its name is the label of an emoji of the data set.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.data import packages
from zoo.data.dataset import Row, icon_svg, render

ICON_SETS = {"fxemoji": packages.FXEMOJI, "streamline": packages.STREAMLINE}


@dataclass(frozen=True)
class OtherIcons:
    """Icons that are not part of the data set.

    Attributes:
        rows: for each icon, a row of the data set with the same label.
        styles: the icon set of each.
        images: uint8 (N, 64, 64, 3).
    """

    rows: tuple[Row, ...]
    styles: tuple[str, ...]
    images: NDArray[np.uint8]


def load(rows: Iterable[Row], cache: Path | None = None) -> OtherIcons:
    """Render the icons whose names are labels of rows.

    Raises:
        PackageUnavailableError: a source package cannot be downloaded.
    """
    by_name = {_squashed(row.caption): row for row in rows}
    found = [
        (by_name[name], style, render(svg))
        for style, package in ICON_SETS.items()
        for name, svg in _icons(packages.fetch(package, cache))
        if name in by_name
    ]
    return OtherIcons(
        tuple(row for row, _, _ in found),
        tuple(style for _, style, _ in found),
        np.stack([image for _, _, image in found]),
    )


def _icons(folder: Path) -> Iterator[tuple[str, str]]:
    icons = json.loads((folder / "icons.json").read_text())
    for name, icon in sorted(icons["icons"].items()):
        yield _squashed(re.sub(r"-\d+$", "", name)), icon_svg(icon, icons)


def _squashed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
