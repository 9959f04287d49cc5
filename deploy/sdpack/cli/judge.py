"""`sdpack judge`: checks whether a judge can be believed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdpack.cli.catalog import catalog_option
from sdpack.cli.output import json_option, print_json, print_lines, print_table, progress, warn
from sdpack.cli.values import PATH, TEXT
from sdpack.documents.catalog_files import located_catalog
from sdpack.domain.precision import Runtime
from sdpack.engines.detect import require
from sdpack.errors import FAILED

if TYPE_CHECKING:
    from sdpack.evaluate.judge_check import JudgeCheck

USUAL_IMAGES = 192


@click.group("judge", epilog="Example: sdpack judge check")
def command() -> None:
    """Check the judges that score images."""


@command.command(
    epilog="""\b
Examples:
  sdpack judge check                                      the zoo's judge, on real images
  sdpack judge check --bundle engines/4gb-gpu             on a bundle's images, too
  sdpack judge check siglip --catalog mine                another judge of a catalog
  sdpack judge check --catalog mine --images my-images    on images with a captions.jsonl
"""
)
@click.argument("judge_name", metavar="[JUDGE]", type=TEXT, required=False)
@catalog_option
@click.option("--bundle", type=PATH, help="Bundle that draws images of the catalog's prompts.")
@click.option("--images", type=PATH, help="Folder of images, with a caption for each.")
@click.option(
    "-n",
    "--count",
    type=click.IntRange(16),
    default=USUAL_IMAGES,
    show_default=True,
    help="Number of real images, and of images to draw.",
)
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    judge_name: str | None,
    catalog_name: str | None,
    bundle: Path | None,
    images: Path | None,
    count: int,
    as_json: bool,
) -> None:
    """Measure how damage to images, and wrong captions, change a judge's scores.

    JUDGE is a name under the catalog's other_judges; without one, the judge that decides is
    checked.

    A judge that rewards damage, at 95 % confidence over all changes together, cannot be believed:
    the command then exits with code 1. Mirroring is measured, too, but does not count as damage.
    """
    require(Runtime.ONNXRUNTIME_CPU)
    from sdpack.export.revisions import pinned
    from sdpack.export.source import local_folder
    from sdpack.pack.judging import checked_images
    from sdpack.pack.selection.loaded_judge import LoadedJudge

    located = pinned(located_catalog(catalog_name))
    model = checked_images.judge_of(located, judge_name)
    with progress(ctx) as say:
        given = checked_images.images_here(located, bundle, images, count, say)
        judge = LoadedJudge(model, lambda source: local_folder(source, located.folder))
        judge.check()
        score = judge.score  # before any image is drawn for it
        if bundle is not None:
            given.append(checked_images.drawn(bundle, located, count, say))
        found = checked_images.check_on(score, given, say)
    for one in found:
        if one.images < count and one.name != checked_images.GIVEN:
            warn(
                f"the catalog has only {one.images} prompts; there is one {one.name} image of each"
            )
    wrong = [f"{effect.change} ({one.name} images)" for one in found for effect in one.wrong]
    if as_json:
        print_json([_figures(one) for one in found])
    else:
        for one in found:
            _print(one)
        print_lines([f"rewarded: {', '.join(wrong)}" if wrong else "no damage is rewarded"])
    if wrong:
        ctx.exit(FAILED)


def _print(found: JudgeCheck) -> None:
    rows = [(e.change, e.estimate.signed(), e.verdict.value) for e in found.effects]
    title = f"{found.images} images ({found.name}), mean score {found.score}"
    print_table(("change", "effect on the score", "verdict"), rows, title)


def _figures(found: JudgeCheck) -> dict[str, Any]:
    return {
        "images": found.name,
        "count": found.images,
        "score": asdict(found.score),
        "effects": [
            {
                "change": effect.change,
                **asdict(effect.estimate),
                "low_over_all": effect.least,
                "damage": effect.is_damage,
                "verdict": effect.verdict.value,
            }
            for effect in found.effects
        ],
    }
