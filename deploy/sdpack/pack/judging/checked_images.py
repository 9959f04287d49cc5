"""The images on which a catalog's judge is checked: real ones, a bundle's, or a folder's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from sdpack.documents.bundle import open_bundle
from sdpack.documents.catalog_files import LocatedCatalog
from sdpack.documents.prompts import CatalogPrompt, read_prompt_file
from sdpack.documents.quality import JudgeModel
from sdpack.errors import CatalogError, InputError
from sdpack.evaluate.judge_check import CaptionedImages, JudgeCheck, check_judge
from sdpack.evaluate.scorers import Score
from sdpack.pack.real_images import real_images
from sdpack.progress import Say, counted
from sdpack.quantization.sensitivity import spread
from sdpack.runtime.bundle import pipeline, request
from sdpack.runtime.choose import chosen_runtime
from sdpack.runtime.pipeline import Pictures

GIVEN = "given"  # the name of images from a folder
CAPTIONS_FILE = "captions.jsonl"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def judge_of(located: LocatedCatalog, name: str | None) -> JudgeModel:
    """Return a judge of a catalog by its name under other_judges; without one, that which decides.

    Raises:
        CatalogError: there is no such judge, or it is a reader of text.
    """
    catalog, quality = located.catalog, located.catalog.quality
    if quality.primary is None:
        raise CatalogError(
            f"the catalog {catalog.name} has no judge to check; name one under quality.judge"
        )
    if name is None:
        return quality.primary
    judge = quality.other_judges.get(name)
    if judge is None:
        known = ", ".join(quality.other_judges) or "none"
        raise CatalogError(
            f"the catalog {catalog.name} has no judge {name}; its other_judges are: {known}"
        )
    if not isinstance(judge, JudgeModel):
        raise CatalogError(
            f"{name} reads text in images, and is not checked with captions; name another judge"
        )
    return judge


def check_on(score: Score, given: Sequence[CaptionedImages], say: Say) -> list[JudgeCheck]:
    """Check a judge on each kind of images.

    Raises:
        SourceError: its scores cannot be used.
    """
    return [
        check_judge(score, images, counted(say, f"changing images ({images.name})"))
        for images in given
    ]


def real(located: LocatedCatalog, count: int) -> CaptionedImages | None:
    """Return real images of a catalog, evenly spaced; None if it has none.

    Raises:
        CatalogError: they cannot be read.
    """
    quality = located.catalog.quality
    if quality.real_images is None:
        return None
    prompts = located.prompt_list(quality.prompts)
    places = spread(range(len(prompts)), count)
    images = real_images(located, quality.real_images)[places]
    return _captioned("real", images, [prompts[place] for place in places])


def drawn(folder: Path, located: LocatedCatalog, count: int, say: Say) -> CaptionedImages:
    """Draw some of a catalog's prompts with a bundle, each from the seed of its number.

    Raises:
        SdpackError: the bundle is damaged, or cannot draw.
    """
    manifest, catalog = open_bundle(folder), located.catalog
    prompts = located.prompt_list(catalog.quality.prompts)
    places = spread(range(len(prompts)), count)
    step = counted(say, f"drawing with {manifest.name}")
    images = []
    with closing(pipeline(folder, manifest, chosen_runtime(manifest))) as loaded:
        for done, place in enumerate(places):
            step(done, len(places))
            images.append(loaded.draw(request(manifest, [prompts[place].text], [place]))[0])
    return _captioned("drawn", np.stack(images), [prompts[place] for place in places])


def from_folder(folder: Path, say: Callable[[str], None] = lambda _: None) -> CaptionedImages:
    """Read a folder's images, in the order of their names, with the captions in captions.jsonl.

    Raises:
        InputError: their numbers differ, their sizes differ, or one cannot be read.
        CatalogError: the captions cannot be read.
    """
    prompts = read_prompt_file(folder / CAPTIONS_FILE)
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if len(paths) != len(prompts):
        raise InputError(
            f"{folder} has {len(paths)} images, but {CAPTIONS_FILE} has {len(prompts)} captions; "
            "write one line for each image, in the order of their names"
        )
    say(f"reading {len(paths)} images")
    images = [_read(path) for path in paths]
    sizes = {image.shape[1::-1] for image in images}
    if len(sizes) > 1:
        raise InputError(f"{folder} has images of different sizes, {sorted(sizes)}; scale them")
    return _captioned(GIVEN, np.stack(images), prompts)


def _captioned(name: str, images: Pictures, prompts: Sequence[CatalogPrompt]) -> CaptionedImages:
    changed = {prompt.caption: prompt.swapped for prompt in prompts if prompt.swapped}
    return CaptionedImages(name, images, [prompt.caption for prompt in prompts], changed)


def _read(path: Path) -> Pictures:
    try:
        return np.asarray(Image.open(path).convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as cause:
        raise InputError(f"{path} is not an image ({cause}); restore it, or remove it") from cause


def images_here(
    located: LocatedCatalog, bundle: Path | None, folder: Path | None, count: int, say: Say
) -> list[CaptionedImages]:
    """Return the images to check a catalog's judge on that need not be drawn.

    Args:
        bundle: draws images of the catalog's prompts later, if given.
        folder: a folder of images with captions, if given.
        count: number of the catalog's real images.

    Raises:
        InputError: there are none, and no bundle that draws some.
        SourceError: as `CaptionedImages.check`.
    """
    of_folder = None if folder is None else from_folder(folder, say)
    found = [images for images in (of_folder, real(located, count)) if images is not None]
    for images in found:
        images.check()
    if not found and bundle is None:
        raise InputError(
            f"the catalog {located.catalog.name} has no real images; give a --bundle that draws "
            "its prompts, or --images with captions"
        )
    return found
