"""The contact sheet `zoo/samples.png`: a row per prompt, a column per pair, real images last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from PIL import Image, ImageDraw, ImageFont
from rich.progress import track
from torch import Tensor

from zoo import parts
from zoo.data import prompts
from zoo.errors import ZooError
from zoo.evaluation import evaluate
from zoo.evaluation.sample import ZooPipeline

SHEET = Path(__file__).parents[1] / "samples.png"
TILE, GAP, LABEL_WIDTH, HEADER = 64, 4, 190, 22


def sheet(titles: Sequence[str], captions: Sequence[str], columns: Sequence[Tensor]) -> Image.Image:
    """Return a labelled grid; `columns` are uint8 (rows, 64, 64, 3), one for each title."""
    step = TILE + GAP
    size = (LABEL_WIDTH + step * len(columns) + GAP, HEADER + step * len(captions) + GAP)
    picture = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for x, (title, column) in enumerate(zip(titles, columns, strict=True)):
        left = LABEL_WIDTH + step * x
        pen.text((left + TILE / 2, HEADER / 2), title, "black", font, anchor="mm")
        for y, tile in enumerate(column):
            picture.paste(Image.fromarray(tile.numpy()), (left, HEADER + step * y))
    for y, caption in enumerate(captions):
        middle = HEADER + step * y + TILE / 2
        pen.text((6, middle), _fit(caption, pen, font), "black", font, anchor="lm")
    return picture


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _fit(text: str, pen: ImageDraw.ImageDraw, font: Font) -> str:
    while pen.textlength(text, font) > LABEL_WIDTH - 10:
        text = text.removesuffix("...")[:-1].rstrip() + "..."
    return text


def zoo_sheet(pairs: Sequence[tuple[parts.Size, parts.Size]], seed: int = 0) -> Image.Image:
    """Draw the sample prompts with these pairs, all from the same noise, beside the real images."""
    asked = prompts.read_list(evaluate.SAMPLES)
    texts, seeds = [p.text for p in asked], [seed + i for i in range(len(asked))]
    columns = [
        ZooPipeline.of(encoder, denoiser).draw(texts, seeds)
        for encoder, denoiser in track(pairs, "drawing", transient=True)
    ]
    titles = [f"{encoder}/{denoiser}".upper() for encoder, denoiser in pairs]
    unseen = {p.label for p in prompts.read_list("unseen_labels")}
    captions = [f"{p.text}{' *' if p.label in unseen else ''}" for p in asked]
    return sheet([*titles, "real"], captions, [*columns, evaluate.read_real(evaluate.SAMPLES)])


@click.command(epilog="Example: python -m zoo.evaluation.contact_sheet --out sheet.png --seed 7")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=SHEET)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--diagonal", is_flag=True, help="Only S/S, M/M and L/L.")
def main(out: Path, seed: int, diagonal: bool) -> None:
    """Draw the sample prompts with every encoder/denoiser pair; * marks labels never trained on."""
    every = [(e, d) for e in parts.SIZES for d in parts.SIZES]
    try:
        picture = zoo_sheet([(s, s) for s in parts.SIZES] if diagonal else every, seed)
        picture.save(out, optimize=True)
    except (ZooError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{out}: {picture.width}x{picture.height}")


if __name__ == "__main__":
    main()
