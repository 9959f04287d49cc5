"""Predicted and measured peaks of memory on this CPU: python -m benchmarks.predicted_peaks

`sdpack build` builds each mix in each placement from a catalog of its three parts; `sdpack verify`
measures it, drawing an image in a separate process. The first four mixes are the zoo's largest
parts in each precision that a CPU keeps small.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console
from rich.table import Table
from sdpack.documents.catalog_files import default_catalog
from sdpack.documents.profile import profiles_folder
from sdpack.units import format_bytes

from benchmarks.measured_on import machine_and_versions

MIXES = (
    ("l", "l", "kl", "fp32"),
    ("l", "l", "kl", "int8"),
    ("l", "l", "kl", "w8"),
    ("l", "l", "kl", "w4"),
    ("s", "s", "tiny", "w4"),
    ("s", "s", "kl", "fp32"),
    ("s", "m", "tiny", "int8"),
    ("m", "s", "kl", "w8"),
    ("m", "m", "kl", "fp32"),
    ("l", "l", "tiny", "w8"),
    ("l", "s", "tiny", "w4"),
    ("s", "l", "kl", "int8"),
    ("m", "l", "tiny", "w4"),
)
ALLOWED = 1.05


def narrowed(folder: Path, encoder: str, denoiser: str, decoder: str) -> Path:
    """Return the default catalog with one candidate for each role."""
    located = default_catalog()
    values = yaml.safe_load((located.folder / "catalog.yaml").read_text())
    for role, name in (("text_encoders", encoder), ("denoisers", denoiser), ("decoders", decoder)):
        values[role] = {name: values[role][name]}
    values["bridges"] = [
        b for b in values["bridges"] if (b["text_encoder"], b["denoiser"]) == (encoder, denoiser)
    ]
    for name in ("parts", "prompts"):
        link = folder / name
        if not link.exists():
            link.symlink_to(located.folder / name, target_is_directory=True)
    path = folder / f"{encoder}-{denoiser}-{decoder}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def device(folder: Path, base: str, precision: str, loading: str) -> Path:
    """Return a profile limited to one precision and one placement."""
    values = yaml.safe_load((profiles_folder() / f"{base}.yaml").read_text())
    path = folder / f"{precision}-{loading}.yaml"
    path.write_text(yaml.safe_dump({**values, "precisions": [precision], "loading": [loading]}))
    return path


def sdpack(*words: str) -> Any:
    """Return the JSON that a subcommand prints, even if it fails because the peak is too high."""
    command = [sys.executable, "-m", "sdpack", "-q", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.stdout:
        raise click.ClickException(done.stderr.strip())
    return json.loads(done.stdout)


@click.command()
@click.option("--profile", "base", default="cpu-2gb", show_default=True)
@click.option("--first", default=len(MIXES), show_default=True, help="Number of mixes to measure.")
def main(base: str, first: int) -> None:
    """Print one table; exit code 1 if a peak is more than 5 % above its prediction."""
    console = Console()
    table = Table(title=f"peaks of one picture, {base}")
    for head in ("mix", "placement", "weights", "predicted", "measured", "measured / predicted"):
        table.add_column(head, justify="left" if head in ("mix", "placement") else "right")
    ratios = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for *parts, precision in MIXES[:first]:
            catalog = narrowed(folder, *parts)
            for loading in ("resident", "phased"):
                profile = device(folder, base, precision, loading)
                out = folder / "bundle"
                where = ("--catalog", str(catalog), "--out", str(out), "--images", "1")
                sdpack("build", "--profile", str(profile), *where)
                seen = sdpack("verify", str(out))
                ratios.append(seen["measured_bytes"] / seen["predicted_bytes"])
                table.add_row(
                    f"{'/'.join(parts)} {precision}",
                    loading,
                    format_bytes(sum(f.stat().st_size for f in out.rglob("model.onnx*"))),
                    format_bytes(seen["predicted_bytes"]),
                    format_bytes(seen["measured_bytes"]),
                    f"{ratios[-1]:.3f}",
                )
    console.print(table)
    console.print(f"largest {max(ratios):.3f}; {machine_and_versions('sdpack', 'onnxruntime')}")
    if max(ratios) > ALLOWED:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
