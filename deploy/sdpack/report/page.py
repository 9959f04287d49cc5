"""Pages of charts, images and tables, each one file that works offline."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from PIL import Image

from sdpack.errors import StoreError
from sdpack.report.figure import Figure
from sdpack.store.files import explain_io, write_whole

ENLARGED_SIDE = 128  # pixels; images up to this side are enlarged without smoothing
LOSSY_SIDE = 256  # pixels; images from this side on are embedded with lossy compression
PNG_WIDTH = 760  # pixels, before PNG_SCALE
PNG_SCALE = 2.0
HERE = Path(__file__).parent


@dataclass(frozen=True)
class FilterOption:
    """A filter of the charts of mixes: its label and the values it offers."""

    words: str
    of: Sequence[str]


@dataclass(frozen=True)
class PageImage:
    """An image as a data URI, and its score; None if that was not measured."""

    uri: str
    score: float | None


@dataclass(frozen=True)
class ImageRow:
    """A labelled row of images; `mix` is None if no mix drew them."""

    label: str
    mix: str | None
    images: Sequence[PageImage]


@dataclass(frozen=True)
class Table:
    """A table; `numbers` are the columns that are aligned right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    open: bool = False


@dataclass(frozen=True)
class Page:
    """A page's content.

    Attributes:
        summary: the findings, in sentences.
        choices: filters of the charts of mixes, by the field they filter.
        small: whether the images are so small that enlarging them unsmoothed looks better.
    """

    title: str
    subtitle: str
    summary: Sequence[str]
    figures: Sequence[Figure]
    tables: Sequence[Table]
    choices: Mapping[str, FilterOption] = field(default_factory=dict)
    sheet: Sequence[ImageRow] = ()
    prompts: Sequence[str] = ()
    sheet_caption: str = ""
    small: bool = False


def html(page: Page) -> str:
    """The page as one HTML file that makes no requests."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True)
    specs = {figure.name: figure.spec for figure in page.figures}
    return environment.get_template("page.html").render(
        page=page,
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        js=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        vega=Markup(_library()),
        specs=Markup(_in_script(specs)),
    )


@cache
def _library() -> str:
    """Vega, Vega-Lite and vega-embed as one script."""
    bundled = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundled.replace("</script", "<\\/script")


def _in_script(value: Any) -> str:
    """JSON that cannot end the script element around it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def png(figure: Figure) -> bytes:
    """A chart as a PNG file on a white background."""
    spec = {**figure.spec, "width": PNG_WIDTH, "title": figure.title}
    spec["config"] = {**spec["config"], "background": "white"}
    return bytes(vl_convert.vegalite_to_png(json.dumps(spec), scale=PNG_SCALE))


def write_page(page: Page, path: Path, charts: Path | None) -> None:
    """Write the page, and its charts as PNGs to a folder.

    Args:
        charts: the folder; None writes no PNGs.

    Raises:
        StoreError: they cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if charts is not None:
            charts.mkdir(exist_ok=True)
            for figure in page.figures:
                write_whole(charts / f"{figure.name}.png", png(figure))
        write_whole(path, html(page).encode())
    except OSError as cause:
        raise StoreError(explain_io(cause, path)) from cause


def image_uri(image: Image.Image) -> str:
    """An image as a data URI: PNG if it is small, else WebP with losses too small to see."""
    held = io.BytesIO()
    if max(image.size) < LOSSY_SIDE:
        image.save(held, "PNG", optimize=True)
        kind = "png"
    else:
        image.save(held, "WEBP", quality=85, method=4)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(held.getvalue()).decode()}"
