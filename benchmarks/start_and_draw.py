"""Start and drawing time compared with optimum and diffusers: python -m benchmarks.start_and_draw

Stable Diffusion 1.5 with random weights, 512 x 512 pixels, 4 steps with guidance, on this CPU:
sdpack's bundles in fp32 and int8, optimum's ONNX Runtime pipeline on its own export of the same
weights, and diffusers on PyTorch. Each starts in a separate process and draws one image. The first
table compares the exports. optimum and diffusers have their own environment, created once.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import click
from rich.console import Console
from rich.table import Table
from sdpack.documents.bundle import open_bundle
from sdpack.documents.profile import profiles_folder
from sdpack.domain.placement import Role
from sdpack.engines.session import Arrays, Session
from sdpack.runtime.bundle import pipeline, request
from sdpack.store.artifacts import CACHE_VARIABLE, cache_folder
from sdpack.units import format_bytes

from benchmarks.environments import interpreter
from benchmarks.measured_on import machine_and_versions
from benchmarks.metering import Taken, take
from benchmarks.optimum_pipeline import PACKAGES
from benchmarks.random_models import random_model

STEPS, SCALE, SIDE = 4, 7.5, 512
PROMPT = "a red fox sitting in a snowy forest"
LIMIT_S = 3600
RIVAL = """
import json, sys, time
since = time.perf_counter()
import torch
kind, folder, prompt, steps, scale, side = sys.argv[1:]
if kind == "optimum":
    from optimum.onnxruntime import ORTStableDiffusionPipeline as Pipeline
    pipeline = Pipeline.from_pretrained(folder, export=False)
else:
    from diffusers import StableDiffusionPipeline as Pipeline
    pipeline = Pipeline.from_pretrained(
        folder, torch_dtype=torch.float32, safety_checker=None, feature_extractor=None
    )
pipeline.set_progress_bar_config(disable=True)
loaded = time.perf_counter()
side = int(side)
pipeline(
    prompt, num_inference_steps=int(steps), guidance_scale=float(scale), height=side, width=side
)
print(json.dumps({"load_s": loaded - since, "draw_s": time.perf_counter() - loaded}))
"""
EXPORT = """
import sys
from pathlib import Path
from sdpack.store.artifacts import Store
from sdpack.store.ledger import Ledger
from sdpack.export.adopt import adopt
from sdpack.pack.planning.mix import in_precisions
from sdpack.pack.context import BuildContext
from sdpack.pack.request import BuildRequest
from sdpack.pack.toolchain import Toolchain
from sdpack.domain.precision import Precision
from sdpack.documents.profile import find_profile
model, out = sys.argv[1], Path(sys.argv[2])
request = BuildRequest(find_profile("cpu-8gb"), adopt(model), out)
context = BuildContext(request, Store(out / "store"), Ledger(out / "ledger.sqlite"))
toolchain = Toolchain.of(context)
(parts,) = context.catalog.mixable()
for variant in in_precisions(parts, [Precision.FP32] * len(parts.names)).variants:
    toolchain.sources.of(variant)
"""


@dataclass
class Timed:
    """A session whose runs are timed."""

    session: Session
    seconds: list[float] = field(default_factory=list)

    def run(self, inputs: Arrays) -> dict[str, Any]:
        since = time.perf_counter()
        found = self.session.run(inputs)
        self.seconds.append(time.perf_counter() - since)
        return found

    def close(self) -> None:
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def draw_here(bundle: Path) -> None:
    """Load a bundle, draw one image, and print the times."""
    since = time.perf_counter()
    manifest = open_bundle(bundle)
    drawer = pipeline(bundle, manifest)
    drawer.load()
    loaded = time.perf_counter()
    asked = request(manifest, [PROMPT], [0])
    drawer.draw(asked)
    drawn = time.perf_counter()
    drawer.close()
    denoiser = Timed(drawer.loaders[Role.DENOISER]())
    drawer.loaders = {**drawer.loaders, Role.DENOISER: lambda: denoiser}
    texts = drawer.texts(asked)
    before = time.perf_counter()
    drawer.denoise(asked, *texts)
    whole = time.perf_counter() - before
    added = whole / sum(denoiser.seconds) - 1
    seconds = {"load_s": loaded - since, "draw_s": drawn - loaded, "loop": added}
    print(json.dumps(seconds))


def bundle_of(model: Path, precision: str, cache: Path) -> Path:
    """Return a bundle of the model at one precision for a CPU, built once."""
    out = cache / "bundles" / f"runtime-{precision}"
    if (out / "manifest.json").exists():
        return out
    profile = cache / f"{precision}.yaml"
    text = (profiles_folder() / "cpu-8gb.yaml").read_text()
    profile.write_text(text.replace("runtime:", f"precisions: [{precision}]\nruntime:"))
    command = [sys.executable, "-m", "sdpack", "build", "--profile", str(profile)]
    words = ["--model", str(model), "--out", str(out), "--images", "1", "--steps", str(STEPS)]
    done = take([*command, *words, "--json"], LIMIT_S, {CACHE_VARIABLE: str(cache)})
    if done.failed:
        sys.exit(f"{precision}: {done.failed}")
    return out


def rows(taken: Mapping[str, Taken], title: str) -> Table:
    """Return the seconds and memory of each pipeline."""
    table = Table(title=title, title_justify="left")
    for column in ("what", "load", "picture", "whole process", "peak, resident", "private", "loop"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, seen in taken.items():
        if seen.failed:
            table.add_row(name, "failed", seen.failed[-80:])
            continue
        said = [line for line in seen.said.splitlines() if line.startswith("{")]
        times = json.loads(said[-1]) if said else {}
        loop = f"{times['loop']:+.2%}" if "loop" in times else ""
        table.add_row(
            name,
            f"{times['load_s']:.1f} s" if times else "",
            f"{times['draw_s']:.1f} s" if times else "",
            f"{seen.seconds:.1f} s",
            format_bytes(seen.resident_bytes),
            format_bytes(seen.private_bytes),
            loop,
        )
    return table


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), hidden=True)
@click.option("--skip-exports", is_flag=True, help="Skip the first table if both exports exist.")
def main(bundle: Path | None, skip_exports: bool) -> None:
    """Print two tables."""
    if bundle is not None:
        draw_here(bundle)
        return
    console = Console(width=140)
    kept = cache_folder() / "benchmarks"
    model, theirs = random_model("sd15", kept / "random-sd15"), kept / "optimum-sd15"
    python = interpreter("optimum", PACKAGES)
    if not (skip_exports and theirs.exists()):
        ours = kept / "exported-sd15"
        for folder in (ours, theirs):
            shutil.rmtree(folder, ignore_errors=True)
        cli = python.with_name("optimum-cli")
        named = ["--model", str(model), "--task", "text-to-image", str(theirs)]
        exports = {
            "sdpack, 3 parts": take([sys.executable, "-c", EXPORT, model, ours], LIMIT_S),
            "optimum-cli, 4 parts": take([cli, "export", "onnx", *named], LIMIT_S),
        }
        console.print(rows(exports, "exporting the same weights"))
    cache = kept / "full-scale-sd15"
    bundles = {name: bundle_of(model, name, cache) for name in ("fp32", "int8")}
    own = [sys.executable, "-m", "benchmarks.start_and_draw", "--bundle"]
    seen = {f"sdpack {name}": take([*own, folder], LIMIT_S) for name, folder in bundles.items()}
    asked = [PROMPT, str(STEPS), str(SCALE), str(SIDE)]
    for name, kind, folder in (
        ("optimum, ONNX Runtime", "optimum", theirs),
        ("diffusers, PyTorch", "diffusers", model),
    ):
        seen[name] = take([python, "-c", RIVAL, kind, folder, *asked], LIMIT_S)
    console.print(rows(seen, f"one picture of {SIDE} x {SIDE}, {STEPS} steps with guidance"))
    console.print(f"{machine_and_versions('sdpack', 'onnxruntime')}; {', '.join(PACKAGES)}")


if __name__ == "__main__":
    main()
