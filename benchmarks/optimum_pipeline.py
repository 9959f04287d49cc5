"""A bundle's portable folder in optimum's pipeline: python -m benchmarks.optimum_pipeline BUNDLE

optimum-onnx cannot be installed together with current versions of transformers and diffusers, so it
gets its own environment, created once in sdpack's cache. Both pipelines start from the same noise;
the table shows the differences of the images in steps of 1/255.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from sdpack.documents.bundle import open_bundle
from sdpack.documents.layout import ONNX
from sdpack.domain.precision import Runtime
from sdpack.runtime.bundle import pipeline, request
from sdpack.runtime.pipeline import Noise

from benchmarks.environments import interpreter
from benchmarks.measured_on import machine_and_versions

PACKAGES = (
    "optimum-onnx==0.1.0",
    "optimum==2.1.0",
    "transformers==4.57.6",
    "diffusers==0.39.0",
    "huggingface_hub==0.36.2",
    "accelerate==1.15.0",
    "onnxruntime==1.32.0",
    "numpy==2.4.6",
)
PROMPTS = ["noto, red heart", "twemoji, pizza", "fluent-flat, cat face"]
DRAW = """
import json, sys
import numpy as np, torch
from optimum.onnxruntime import ORTStableDiffusionPipeline
asked = json.load(sys.stdin)
pipeline = ORTStableDiffusionPipeline.from_pretrained(asked["folder"], export=False)
pipeline.set_progress_bar_config(disable=True)
drawn = pipeline(
    asked["prompts"],
    latents=torch.from_numpy(np.load(asked["noise"])),
    num_inference_steps=asked["steps"],
    guidance_scale=asked["guidance_scale"],
    height=asked["height"],
    width=asked["width"],
    output_type="np",
).images
np.save(asked["out"], drawn)
"""


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--environment",
    "folder",
    type=click.Path(path_type=Path),
    help="Environment of optimum; default: in the cache.",
)
def main(bundle: Path, folder: Path | None) -> None:
    """Print one table."""
    manifest = open_bundle(bundle)
    asked = request(manifest, PROMPTS, list(range(len(PROMPTS))))
    drawer = pipeline(bundle, manifest, Runtime.ONNXRUNTIME_CPU)
    ours = drawer.draw(asked)
    python = interpreter("optimum", PACKAGES, folder)
    with tempfile.TemporaryDirectory() as scratch:
        noise, out = Path(scratch) / "noise.npy", Path(scratch) / "drawn.npy"
        np.save(noise, Noise(asked.seeds, drawer.latents.shape(asked.height, asked.width)).draw())
        words = {
            "folder": str(bundle / ONNX),
            "prompts": PROMPTS,
            "noise": str(noise),
            "steps": manifest.sampling.steps,
            "guidance_scale": asked.guidance_scale,
            "height": asked.height,
            "width": asked.width,
            "out": str(out),
        }
        subprocess.run([python, "-c", DRAW], input=json.dumps(words), text=True, check=True)
        theirs = np.load(out)
    table = Table(title=f"{bundle.name} in sdpack and in optimum's ORTStableDiffusionPipeline")
    for column in ("prompt", "largest difference", "mean difference"):
        table.add_column(column, justify="left" if column == "prompt" else "right")
    for prompt, mine, other in zip(PROMPTS, ours, theirs, strict=True):
        apart = np.abs(mine - 255 * other)
        table.add_row(prompt, f"{apart.max():.2f}", f"{apart.mean():.3f}")
    console = Console()
    console.print(table)
    console.print(f"{machine_and_versions('sdpack')}, {', '.join(PACKAGES[:5])}")


if __name__ == "__main__":
    main()
