"""Measure the shipped zoo: `python -m zoo.evaluation.evaluate` prints the model card's tables.

It needs neither the training data nor a network, because the prompts, their real images and the
judge are shipped. `--quick` measures the main rows on a part of the prompts and compares them with
the card's.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from safetensors import safe_open
from sdpack.domain.estimate import Estimate, mean_estimate
from sdpack.evaluate.metrics import Panel, kid, similarity
from torch import Tensor

from zoo import parts
from zoo.data import prompts
from zoo.data.dataset import STYLES
from zoo.data.prompts import ListName, Prompt
from zoo.errors import DataError, ZooError
from zoo.evaluation import metrics
from zoo.evaluation.sample import GUIDANCE_SCALE, STEPS, ZooPipeline
from zoo.training import autoencoder

RESULTS = Path(__file__).parents[1] / "results.json"
CARD = Path(__file__).parents[1] / "README.md"
TABLES_START, TABLES_END = "<!-- tables -->", "<!-- end of tables -->"
EVALUATED: tuple[ListName, ...] = ("unseen_pairs", "unseen_labels")
SAMPLES: ListName = "samples"
QUICK_PROMPTS = 96
TILE = 64
COLUMNS = 24


@dataclass(frozen=True)
class QualityRow:
    """One row of the card: the scores of one source of images on one split."""

    split: str
    source: str
    similarity: Estimate
    r_precision: Estimate
    style_accuracy: Estimate
    kid: Estimate | None


@dataclass(frozen=True)
class PartSize:
    """The size of one shipped part."""

    name: str
    parameters: int
    bytes: int


class Evaluation:
    """Measures sources of images on a split with one judge.

    Args:
        limit: number of prompts per split, spread evenly over the list; None for all.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.labels = read_labels()

    @cached_property
    def panel(self) -> Panel:
        return Panel(parts.load_judge(), parts.load_tokenizer())

    def _picked(self, name: ListName) -> list[int]:
        count = len(prompts.read_list(name))
        step = 1 if self.limit is None else max(1, count // self.limit)
        return list(range(0, count, step))[: self.limit]

    def prompts(self, name: ListName) -> list[Prompt]:
        listed = prompts.read_list(name)
        return [listed[i] for i in self._picked(name)]

    def real_images(self, name: ListName) -> Tensor:
        return read_real(name)[self._picked(name)]

    def real_quality(self, name: ListName) -> QualityRow:
        """Measure real images that the judge was not trained on, with all metrics except KID."""
        asked = self.prompts(name)
        fair = [i for i, prompt in enumerate(asked) if not prompt.judge_saw]
        pictures = self.real_images(name)[fair]
        return self.quality(name, "real", pictures, [asked[i] for i in fair])

    def quality(
        self, name: ListName, source: str, images: Tensor, asked: Sequence[Prompt]
    ) -> QualityRow:
        """Measure uint8 (N, 64, 64, 3) images, one for each prompt of `asked`, with all metrics."""
        features = self.panel.features(images)
        embedded = self.panel.embed_features(features)
        hits = metrics.r_precision(self.panel, embedded, asked, self.labels)
        styles = metrics.style_accuracy(self.panel, embedded, asked)
        distance = None
        if source != "real":
            distance = kid(features, self.panel.features(self.real_images(name)))
        return QualityRow(
            name,
            source,
            mean_estimate(similarity(self.panel, embedded, [p.text for p in asked])),
            mean_estimate(hits),
            mean_estimate(styles),
            distance,
        )

    def draw(self, name: ListName, encoder: parts.Size, denoiser: parts.Size) -> Tensor:
        """Draw images of the split's prompts; prompt number i always has seed i."""
        asked = self.prompts(name)
        return ZooPipeline.of(encoder, denoiser).draw([p.text for p in asked], self._picked(name))


def read_labels(folder: Path = prompts.PROMPTS_FOLDER) -> list[str]:
    """Return every label the zoo can draw, from which R-precision takes its other captions."""
    path = folder / "labels.json"
    if not path.exists():
        raise DataError(f"{path} is missing; restore it with `git checkout -- {path}`")
    return [str(label) for label in json.loads(path.read_text())]


def read_real(name: ListName, folder: Path = prompts.PROMPTS_FOLDER) -> Tensor:
    """Return the real images of a prompt list, in its order: uint8 (N, 64, 64, 3)."""
    path = folder / f"{name}.png"
    try:
        sheet = np.asarray(Image.open(path).convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read ({error}); restore it with git") from error
    rows = sheet.shape[0] // TILE
    tiles = sheet.reshape(rows, TILE, COLUMNS, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)
    return torch.from_numpy(tiles[: len(prompts.read_list(name, folder))].copy())


def write_real(images: Tensor, path: Path) -> None:
    """Tile uint8 (N, 64, 64, 3) images into one PNG, 24 per row, padded with white."""
    missing = -len(images) % COLUMNS
    white = torch.full((missing, TILE, TILE, 3), 255, dtype=torch.uint8)
    tiles = torch.cat([images, white]).reshape(-1, COLUMNS, TILE, TILE, 3)
    sheet = tiles.transpose(1, 2).reshape(-1, COLUMNS * TILE, 3).numpy()
    Image.fromarray(sheet).save(path, optimize=True)


def part_sizes(folder: Path = parts.PARTS_FOLDER) -> list[PartSize]:
    """Return the parameters and bytes of every weight file, read from the files."""
    found = []
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, "pt") as weights:
            shapes = [weights.get_slice(key).get_shape() for key in weights.keys()]  # noqa: SIM118 (not a dict)
        count = sum(int(np.prod(shape)) for shape in shapes)
        found.append(
            PartSize(path.parent.relative_to(folder).as_posix(), count, path.stat().st_size)
        )
    return found


def decoder_psnr(real: Tensor) -> dict[str, Estimate]:
    """Return the PSNR in dB of each decoder on the KL encoder's latents of held-out images."""
    kl = parts.load_decoder("kl")
    assert isinstance(kl, AutoencoderKL)
    latents = autoencoder.encode(kl, real)
    seen = {name: autoencoder.decode(parts.load_decoder(name), latents) for name in parts.DECODERS}
    return {
        name: mean_estimate(autoencoder.psnr(images, real).double().numpy())
        for name, images in seen.items()
    }


def measure(
    evaluation: Evaluation, pairs: Sequence[tuple[parts.Size, parts.Size]], console: Console
) -> list[QualityRow]:
    """Measure the quality of the real images and of every pair on both splits."""
    rows = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("drawing", total=len(EVALUATED) * (len(pairs) + 1))
        for name in EVALUATED:
            rows.append(evaluation.real_quality(name))
            progress.advance(task)
            for encoder, denoiser in pairs:
                images = evaluation.draw(name, encoder, denoiser)
                asked = evaluation.prompts(name)
                rows.append(evaluation.quality(name, f"{encoder}/{denoiser}", images, asked))
                progress.advance(task)
    return rows


def quality_table(rows: Iterable[QualityRow], beside: dict[tuple[str, str], QualityRow]) -> Table:
    """Return the card's main table; `beside` adds the card's R-precision and whether both agree."""
    table = Table(box=box.MARKDOWN)
    titles = [
        "split",
        "encoder/denoiser",
        "judge similarity",
        "R-precision@1",
        "style@1",
        "KID x1000",
    ]
    for title in titles + (["card's R-precision@1", "meets"] if beside else []):
        table.add_column(title, no_wrap=True)
    for row in rows:
        cells = [row.split, row.source.upper() if row.source != "real" else "real pictures"]
        cells += [str(row.similarity), str(row.r_precision), str(row.style_accuracy)]
        cells.append(
            "-"
            if row.kid is None
            else f"{row.kid.value:.1f} [{row.kid.low:.1f}, {row.kid.high:.1f}]"
        )
        if beside:
            card = beside[row.split, row.source]
            cells += [str(card.r_precision), "yes" if meets(row, card) else "NO"]
        table.add_row(*cells)
    chance = (f"{1 / metrics.CAPTIONS:.3f}", f"{1 / len(STYLES):.3f}", "-")
    table.add_row("-", "chance", "-", *chance, *(["-", "-"] if beside else []))
    return table


def meets(row: QualityRow, card: QualityRow) -> bool:
    """Return whether the intervals of similarity and R-precision both overlap the card's."""
    return row.r_precision.overlaps(card.r_precision) and row.similarity.overlaps(card.similarity)


def read_card(path: Path = RESULTS) -> dict[tuple[str, str], QualityRow]:
    """Read the figures in the model card, by split and source."""
    if not path.exists():
        raise DataError(f"{path} is missing; run `python -m zoo.evaluation.evaluate` to measure it")
    rows = [_quality(values) for values in json.loads(path.read_text())["quality"]]
    return {(row.split, row.source): row for row in rows}


def _quality(values: dict[str, Any]) -> QualityRow:
    estimates = {
        key: None if value is None else Estimate(**value)
        for key, value in values.items()
        if key not in ("split", "source")
    }
    return QualityRow(values["split"], values["source"], **estimates)  # type: ignore[arg-type]


def sizes_table(sizes: Iterable[PartSize]) -> Table:
    table = Table(box=box.MARKDOWN)
    table.add_column("part")
    for title in ("parameters", "bytes"):
        table.add_column(title, justify="right")
    for part in sizes:
        table.add_row(part.name, f"{part.parameters:,}", f"{part.bytes:,}")
    return table


def psnr_table(decoders: dict[str, Estimate]) -> Table:
    table = Table(box=box.MARKDOWN)
    table.add_column("decoder")
    table.add_column("PSNR")
    for name, estimate in decoders.items():
        table.add_row(name, estimate.to(2))
    return table


@dataclass(frozen=True)
class Measured:
    """All measurements of one run."""

    sizes: list[PartSize]
    psnr_db: dict[str, Estimate]
    quality: list[QualityRow]

    def markdown(self, beside: dict[tuple[str, str], QualityRow] | None = None) -> str:
        """Return the card's three tables."""
        headings = (
            "Parts, fp16 on disk",
            "Decoders: PSNR in dB on held-out pictures, from the KL encoder's latents",
            f"Quality: fp32, {STEPS} steps, guidance {GUIDANCE_SCALE:g}, KL decoder",
        )
        tables = (
            sizes_table(self.sizes),
            psnr_table(self.psnr_db),
            quality_table(self.quality, beside or {}),
        )
        return "\n".join(
            f"**{heading}**\n\n{_rendered(table)}"
            for heading, table in zip(headings, tables, strict=True)
        )


def _rendered(table: Table) -> str:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = (line.rstrip() for line in console.file.getvalue().splitlines())
    return "\n".join(line for line in lines if line) + "\n"


def run(quick: bool, console: Console) -> Measured:
    """Measure the shipped parts: the main rows on part of the prompts, or everything."""
    evaluation = Evaluation(QUICK_PROMPTS if quick else None)
    decoders = decoder_psnr(torch.cat([evaluation.real_images(name) for name in EVALUATED]))
    every = [(e, d) for e in parts.SIZES for d in parts.SIZES]
    rows = measure(evaluation, [(s, s) for s in parts.SIZES] if quick else every, console)
    return Measured(part_sizes(), decoders, rows)


def write_card(measured: Measured, card: Path = CARD, results: Path = RESULTS) -> None:
    """Record a full run: its figures in results.json, its tables in the card."""
    before, _, rest = card.read_text().partition(TABLES_START)
    _, _, after = rest.partition(TABLES_END)
    if not after:
        raise DataError(f"{card} has no {TABLES_START} ... {TABLES_END}; put them back")
    results.write_text(json.dumps(asdict(measured), indent=1) + "\n")
    card.write_text(f"{before}{TABLES_START}\n{measured.markdown()}{TABLES_END}{after}")


@click.command(epilog="Example: python -m zoo.evaluation.evaluate --quick")
@click.option(
    "--quick",
    is_flag=True,
    help="Measure the main rows on a part of the prompts, and compare them with the card.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--write", is_flag=True, help="Record a full run in zoo/README.md and results.json.")
def main(quick: bool, as_json: bool, write: bool) -> None:
    """Print sizes, decoder PSNR and the quality of the zoo's pairs with 95 % intervals.

    With --quick, exits with 1 if an interval of a row does not overlap the card's.
    """
    if quick and write:
        raise click.UsageError("--write records a full run; leave out --quick")
    try:
        card = read_card() if quick else {}
        measured = run(quick, Console(stderr=True))
        if write:
            write_card(measured)
    except ZooError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(asdict(measured)) if as_json else measured.markdown(card))
    if quick and not all(meets(row, card[row.split, row.source]) for row in measured.quality):
        raise click.ClickException("a row does not meet the card's interval (see the table)")


if __name__ == "__main__":
    main()
