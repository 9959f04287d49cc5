"""The zoo's data set: 64x64 emoji in six open styles with Unicode captions and keywords.

`python -m zoo.data.dataset` builds it (about two minutes, cached). Skin-tone variants and flags
are left out, because a small model learns little from thousands of near-copies and from texts about
countries. Transparent images get a white background.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from multiprocessing import Pool
from pathlib import Path
from typing import Literal, get_args

import click
import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from zoo.data import packages
from zoo.errors import DataError, PackageUnavailableError, ZooError

IMAGE_SIZE = 64
NO_RESVG = "SVG is rendered with resvg_py, which is not installed; run `pip install -e '.[zoo]'`"
DATA_VERSION = 1

Style = Literal["noto", "noto-v1", "twemoji", "emojione", "fluent-flat", "fluent-3d"]
STYLES: tuple[Style, ...] = get_args(Style)
Split = Literal["train", "unseen_pairs", "unseen_labels"]
SPLITS: tuple[Split, ...] = get_args(Split)

ICON_SETS: dict[Style, packages.NpmPackage] = {
    "noto": packages.NOTO,
    "noto-v1": packages.NOTO_V1,
    "twemoji": packages.TWEMOJI,
    "emojione": packages.EMOJIONE,
    "fluent-flat": packages.FLUENT_FLAT,
}
LEFT_OUT_GROUPS = {"component", "flags"}
# What the denoisers are trained and judged on: things that look different from one another.
# People and symbols (arrows, letters in boxes) stay in the data set for the other parts.
DRAWN_GROUPS = {
    "smileys-emotion",
    "animals-nature",
    "food-drink",
    "travel-places",
    "activities",
    "objects",
}

UNSEEN_LABEL_SHARE = 0.08
UNSEEN_PAIR_SHARE = 0.10
# Of the unseen labels' pictures, the share the judge does not see either: on these its
# figures for real images are honest.
JUDGE_TEST_SHARE = 0.55


@dataclass(frozen=True)
class Row:
    """One image of the data set: its emoji, its style and its texts."""

    code: str
    style: Style
    caption: str
    keywords: tuple[str, ...]
    group: str
    subgroup: str
    split: Split = "train"
    judge_test: bool = False

    @property
    def drawn(self) -> bool:
        """Whether the denoisers are trained and measured on this row."""
        return self.group in DRAWN_GROUPS


@dataclass(frozen=True)
class Dataset:
    """Rows and their pictures: `images` is uint8 of shape (N, 64, 64, 3), RGB on white."""

    rows: tuple[Row, ...]
    images: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, keep: Iterable[bool]) -> Dataset:
        index = np.flatnonzero(np.fromiter(keep, bool, len(self.rows)))
        return Dataset(tuple(self.rows[i] for i in index), self.images[index])

    def split(self, name: Split) -> Dataset:
        return self.where(row.split == name for row in self.rows)

    def drawn(self) -> Dataset:
        return self.where(row.drawn for row in self.rows)

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of rows and pixels; equal digests mean equal data sets."""
        h = hashlib.sha256(_rows_to_json(self.rows).encode())
        h.update(np.ascontiguousarray(self.images).tobytes())
        return h.hexdigest()


def share(key: str) -> float:
    """Return a number in [0, 1) that depends only on the text; it decides all splits."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def assign_splits(rows: Iterable[Row]) -> list[Row]:
    """Return the rows with `split` and `judge_test` set, by hash of label and style.

    Every label with an unseen pair keeps at least one style in training, and every unseen
    label keeps at least one image for training the judge.
    """
    by_label: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_label[row.caption].append(row)
    return [row for label in by_label for row in _assign_label(label, by_label[label])]


def _assign_label(label: str, rows: list[Row]) -> list[Row]:
    if share(f"label/{label}") < UNSEEN_LABEL_SHARE:
        tested = _held_out(rows, "judge", JUDGE_TEST_SHARE)
        return [replace(r, split="unseen_labels", judge_test=r in tested) for r in rows]
    tested = _held_out(rows, "pair", UNSEEN_PAIR_SHARE)
    return [
        replace(r, split="unseen_pairs" if r in tested else "train", judge_test=r in tested)
        for r in rows
    ]


def _held_out(rows: list[Row], purpose: str, fraction: float) -> set[Row]:
    shares = {row: share(f"{purpose}/{row.caption}/{row.style}") for row in rows}
    kept = max(shares, key=shares.__getitem__)
    return {row for row, s in shares.items() if s < fraction and row is not kept}


def load(cache: Path | None = None, progress: bool = True) -> Dataset:
    """Return the data set, built on first use and read from the cache afterwards.

    Raises:
        PackageUnavailableError: a source package cannot be downloaded.
        DataError: the cached file is damaged.
    """
    path = (cache or packages.cache_folder()) / f"emoji64-v{DATA_VERSION}.npz"
    if not path.exists():
        _save(build(cache, progress), path)
    return _read(path)


def _save(dataset: Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
        np.savez_compressed(file, images=dataset.images, rows=_rows_to_json(dataset.rows))
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)


def _read(path: Path) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as stored:
            rows = tuple(_row(values) for values in json.loads(str(stored["rows"])))
            return Dataset(rows, stored["images"])
    except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error}); delete it and run again") from error


def _rows_to_json(rows: Iterable[Row]) -> str:
    return json.dumps([asdict(row) for row in rows])


def _row(values: dict[str, object]) -> Row:
    return Row(**{**values, "keywords": tuple(values["keywords"])})  # type: ignore[arg-type]


def build(cache: Path | None = None, progress: bool = True) -> Dataset:
    """Render every image from the pinned packages; the result is always the same, byte for byte.

    Images that equal an earlier one byte for byte are dropped, so that no held-out row has a
    duplicate in training.
    """
    emoji = read_annotations(packages.fetch(packages.EMOJIBASE, cache))
    jobs = list(_jobs(emoji, cache))
    pictures = _render_all(jobs, progress)
    rows: list[Row] = []
    images: list[NDArray[np.uint8]] = []
    seen: set[bytes] = set()
    for (style, code, _), image in zip(jobs, pictures, strict=True):
        twin = hashlib.sha256(image.tobytes()).digest()
        if image.std() < 2 or twin in seen:
            continue
        seen.add(twin)
        rows.append(replace(emoji[code], style=style))
        images.append(image)
    return _in_order(rows, images)


def _in_order(rows: list[Row], images: list[NDArray[np.uint8]]) -> Dataset:
    picture = {(r.code, r.style): image for r, image in zip(rows, images, strict=True)}
    ordered = sorted(assign_splits(rows), key=lambda r: (r.code, STYLES.index(r.style)))
    return Dataset(tuple(ordered), np.stack([picture[r.code, r.style] for r in ordered]))


def read_annotations(emojibase: Path) -> dict[str, Row]:
    """Return caption, keywords, group and subgroup of every emoji in use, by code point key."""
    data = json.loads((emojibase / "en" / "data.json").read_text())
    messages = json.loads((emojibase / "en" / "messages.json").read_text())
    groups = {entry["order"]: entry["key"] for entry in messages["groups"]}
    subgroups = {entry["order"]: entry["key"] for entry in messages["subgroups"]}
    kept: dict[str, Row] = {}
    for entry in data:
        group = groups.get(entry.get("group"))
        if group is None or group in LEFT_OUT_GROUPS:
            continue
        key = code_key(entry["hexcode"])
        caption, keywords = entry["label"].lower(), tuple(k.lower() for k in entry.get("tags", []))
        kept[key] = Row(key, "noto", caption, keywords, group, subgroups[entry["subgroup"]])
    return kept


def code_key(hexcode: str) -> str:
    """Return upper-case code points joined by dashes, without the emoji presentation selector."""
    return "-".join(part for part in hexcode.upper().split("-") if part != "FE0F")


Job = tuple[Style, str, "str | Path"]


def _jobs(emoji: dict[str, Row], cache: Path | None) -> Iterator[Job]:
    for style, package in ICON_SETS.items():
        yield from _svg_jobs(style, packages.fetch(package, cache), emoji)
    assets = packages.fetch(packages.FLUENT_3D, cache) / "assets"
    for file in sorted(assets.glob("*.webp")):
        if code_key(file.stem) in emoji:
            yield "fluent-3d", code_key(file.stem), file


def _svg_jobs(style: Style, folder: Path, emoji: dict[str, Row]) -> Iterator[Job]:
    icons = json.loads((folder / "icons.json").read_text())
    chars = json.loads((folder / "chars.json").read_text())
    # The older sets name their icons after the Unicode label and list no code points.
    names = {code_key(code): name for code, name in chars.items()} or {
        key: row.caption.replace(":", "").replace(" ", "-") for key, row in emoji.items()
    }
    for key in sorted(names.keys() & emoji.keys()):
        name = names[key]
        alias = icons.get("aliases", {}).get(name, {})
        if set(alias) - {"parent"}:  # turned or mirrored: another picture, not another name
            continue
        icon = icons["icons"].get(alias.get("parent", name))
        if icon is not None:
            yield style, key, icon_svg(icon, icons)


def icon_svg(icon: dict[str, object], defaults: dict[str, object]) -> str:
    """Return an icon of an icon set as SVG; `defaults` holds the set's sizes."""
    left, top = icon.get("left", 0), icon.get("top", 0)
    width = icon.get("width", defaults.get("width", 16))
    height = icon.get("height", defaults.get("height", 16))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )


def _render_all(jobs: list[Job], progress: bool) -> list[NDArray[np.uint8]]:
    columns = (TextColumn("rendering emoji"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), disable=not progress) as bar, Pool() as pool:
        task = bar.add_task("render", total=len(jobs))
        pictures = []
        for picture in pool.imap(render, [source for _, _, source in jobs], chunksize=64):
            pictures.append(picture)
            bar.advance(task)
    return pictures


def render(source: str | Path) -> NDArray[np.uint8]:
    """Return one image, 64x64x3 uint8 on white, from SVG text or an image file."""
    from PIL import Image

    if isinstance(source, Path):
        image = Image.open(source)
    else:
        try:
            import resvg_py
        except ImportError as error:
            raise PackageUnavailableError(NO_RESVG) from error
        png = resvg_py.svg_to_bytes(
            svg_string=source, width=IMAGE_SIZE, height=IMAGE_SIZE, skip_system_fonts=True
        )
        image = Image.open(io.BytesIO(bytes(png)))
    rgba = image.convert("RGBA")
    if rgba.size != (IMAGE_SIZE, IMAGE_SIZE):
        rgba = rgba.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.LANCZOS)
    values = np.asarray(rgba, np.float32)
    alpha = values[..., 3:] / 255
    return np.clip(values[..., :3] * alpha + 255 * (1 - alpha) + 0.5, 0, 255).astype(np.uint8)


@click.command(epilog="Example: python -m zoo.data.dataset")
def main() -> None:
    """Build the data set and print its contents."""
    try:
        dataset = load()
    except ZooError as error:
        raise click.ClickException(str(error)) from error
    for split in SPLITS:
        part = dataset.split(split)
        styles = {s: sum(r.style == s for r in part.drawn().rows) for s in STYLES}
        print(f"{split:14} {len(part):6} rows, drawn {len(part.drawn()):6}: {styles}")
    print(f"digest {dataset.digest}")


if __name__ == "__main__":
    main()
