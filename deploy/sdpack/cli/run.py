"""`sdpack run`: draws images with a bundle."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path

import click

from sdpack.cli.drawing import least_memory_option, runtime_option
from sdpack.cli.options import out_option
from sdpack.cli.output import json_option, print_json
from sdpack.cli.values import PATH, STEP_COUNT, TEXT, Finite
from sdpack.documents.bundle import bundle_files, open_bundle
from sdpack.documents.overwrite import check_spared
from sdpack.documents.profile import Size, parse_sizes
from sdpack.domain.precision import Runtime
from sdpack.errors import PromptError


@click.command(
    "run",
    epilog="""\b
Examples:
  sdpack run engines/4gb-gpu "noto, pizza"
  sdpack run engines/4gb-gpu "noto, pizza" "twemoji, cat face" --seed 7 -o drawn
  sdpack run engines/4gb-gpu "noto, pizza" -o pizza.webp
""",
)
@click.argument("bundle", type=PATH)
@click.argument("prompts", nargs=-1, required=True)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Seed of the first image; incremented for each prompt.",
)
@click.option(
    "--guidance-scale",
    type=Finite(min=0),
    help="Guidance scale, 1 (Z-Image: 0) disables guidance; default: the bundle's.",
)
@click.option("--negative-prompt", help="What the images should not show; default: the bundle's.")
@click.option("--steps", type=STEP_COUNT, help="Denoising steps; default: the bundle's.")
@click.option(
    "--size",
    type=TEXT,
    help="Image size in pixels, such as 512 or 768x512 (width x height); default: the bundle's.",
)
@runtime_option
@out_option(
    "Folder for 1.png, 2.png ..., or a .png, .jpg, .jpeg or .webp file. Several images with "
    "one file name are numbered: pizza-1.jpg, pizza-2.jpg.",
    Path(),
)
@least_memory_option
@click.option("--device-peak", is_flag=True, hidden=True)
@json_option
def command(
    bundle: Path,
    prompts: tuple[str, ...],
    seed: int,
    guidance_scale: float | None,
    negative_prompt: str | None,
    steps: int | None,
    size: str | None,
    runtime: str | None,
    out: Path,
    least_memory: bool,
    device_peak: bool,
    as_json: bool,
) -> None:
    """Draw one image for each prompt."""
    from sdpack.cli.picture_files import format_of, picture_paths, write_picture
    from sdpack.engines.device_memory import DEVICE_PEAK, DeviceMeter
    from sdpack.runtime.bundle import pipeline, request
    from sdpack.runtime.choose import chosen_runtime
    from sdpack.runtime.infotext import GenerationParameters
    from sdpack.runtime.pictures import encode
    from sdpack.runtime.sampler_label import sampler_label
    from sdpack.runtime.truncation import truncations

    asked_size = _one_size(size)
    manifest = open_bundle(bundle)
    paths = list(islice(picture_paths(out, len(prompts)), len(prompts)))
    check_spared(bundle_files(bundle), paths)
    sampler = sampler_label(bundle)
    asked = partial(
        request,
        manifest,
        guidance_scale=guidance_scale,
        negative_prompt=negative_prompt,
        size=asked_size,
        steps=steps,
    )
    chosen = Runtime(runtime) if runtime else chosen_runtime(manifest)
    files = []
    with DeviceMeter() if device_peak and chosen.on_gpu else nullcontext() as device:
        drawer = pipeline(bundle, manifest, chosen, low_memory=least_memory or None)
        for number, (prompt, path) in enumerate(zip(prompts, paths, strict=True)):
            drawn = asked([prompt], [seed + number])
            (picture,) = drawer.draw(drawn)
            made = GenerationParameters.of(drawn, 0, manifest, sampler)
            if path.exists():
                click.echo(f"{path} exists and is replaced", err=True)
            write_picture(path, encode(picture, format_of(path), made))
            files.append({"prompt": prompt, "seed": seed + number, "file": str(path)})
            for truncation in truncations(drawer.tokenizers, drawer.conditioning, prompt):
                click.echo(f"{prompt!r}: {truncation}", err=True)
        drawer.close()
    if as_json:
        measured = {} if device is None else {DEVICE_PEAK: device.peak_bytes}
        print_json({"runtime": chosen.value, "pictures": files, **measured})
        return
    for one in files:
        click.echo(f"{one['file']}: {one['prompt']} (seed {one['seed']}, {chosen})")


def _one_size(text: str | None) -> Size | None:
    if text is None:
        return None
    sizes = parse_sizes(text)
    if len(sizes) > 1:
        raise PromptError(f"--size {text} names {len(sizes)} sizes; give one")
    return sizes[0]
