"""Forms of attention on this CPU: written out, in slices, and as one operator.

The benchmark runs the UNet of Stable Diffusion 1.5 with random weights and batch 1 in ONNX Runtime.
Every measurement has its own process, and each round measures all forms in turn, so that other load
on the machine affects all of them. It needs 5 GB of memory and 3.5 GB of disk, which it frees.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sdpack.engines import onnxruntime
from sdpack.memory.probe import probe
from sdpack.rewrite.fuse import fuse_attention
from sdpack.rewrite.onnx_file import MODEL_FILE, read
from sdpack.rewrite.slice import slice_attention
from sdpack.units import format_bytes

from benchmarks.measured_on import machine_and_versions

ATTENTIONS = 32  # in each of 16 blocks one over the picture and one over the text
TOKENS, WIDTH = 77, 768
FASTER, ACTIVATIONS = 1.3, 1 / 3  # what fusing has to reach


def export(folder: Path) -> None:
    """Write the UNet as model.onnx."""
    import torch
    from sdpack.documents.conditioning import Conditioning
    from sdpack.export import graph
    from sdpack.export.denoiser import DenoiserPart

    from benchmarks.random_models import PARAMETERS, unet

    torch.manual_seed(0)
    model = unet().eval()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == PARAMETERS["sd15"]["unet"], parameters
    graph.export(DenoiserPart(model, Conditioning()), folder)


def inputs(size: int, batch: int = 1) -> dict[str, NDArray[Any]]:
    """Return random inputs for latents of size x size."""
    rng = np.random.default_rng(0)
    return {
        "sample": rng.standard_normal((batch, 4, size, size), np.float32),
        "timestep": np.array([500.0], np.float32),
        "encoder_hidden_states": rng.standard_normal((batch, TOKENS, WIDTH), np.float32),
    }


def changed(folder: Path, name: str, change: Callable[[ir.Model], int]) -> Path:
    """Return the graph in another form, with the weights of the exported one."""
    model = read(folder / MODEL_FILE)
    count = change(model)
    assert count == ATTENTIONS, count
    path = folder / f"{name}.onnx"
    ir.save(model, path)
    return path


def time_steps(graph: Path, size: int, steps: int) -> float:
    """Return the median seconds of a step after the first, and save the result of that one."""
    given, seconds = inputs(size), []
    with onnxruntime.load(graph) as session:
        (made,) = session.run(given).values()
        for _ in range(steps):
            started = time.perf_counter()
            session.run(given)
            seconds.append(time.perf_counter() - started)
    np.save(graph.with_suffix(".npy"), made)
    return statistics.median(seconds)


def apart(*request: Any) -> Any:
    """Return the result of `work` in a separate process, whose memory is freed at its end."""
    words = json.dumps(request)
    command = [sys.executable, "-m", "benchmarks.attention_forms", "--work", words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise click.ClickException(done.stderr.strip())
    return json.loads(done.stdout.splitlines()[-1])


def work(request: list[Any]) -> Any:
    match request:
        case ["export", folder]:
            return export(Path(folder))
        case ["time", graph, size, steps]:
            return time_steps(Path(graph), size, steps)
    raise click.ClickException(f"{request} is not a supported request")


def activation_bytes(graph: Path, size: int) -> int:
    """Return the peak memory of a process that only runs the graph, less its memory afterwards."""
    shapes = {name: value.shape for name, value in inputs(size).items()}
    return probe(graph, shapes).footprint.activation_bytes


def error(graph: Path, reference: Path) -> float:
    """Return the largest difference of the results, relative to the largest value."""
    seen, wanted = (np.load(path.with_suffix(".npy")) for path in (graph, reference))
    return float(np.abs(seen - wanted).max() / np.abs(wanted).max())


def table(
    graphs: dict[str, Path], seconds: dict[str, list[float]], taken: dict[str, int]
) -> tuple[Table, float, float]:
    """Return the table, the speedup of the fused form, and its share of the activations."""
    made = Table(title="one step of SD1.5's UNet, batch 1, by how attention is computed")
    heads = ("attention", "step s", "times faster", "activations", "of exported", "error")
    for head in heads:
        made.add_column(head, justify="left" if head == heads[0] else "right")
    first, *_ = graphs
    faster = share = 0.0
    for name, graph in graphs.items():
        rounds = zip(seconds[first], seconds[name], strict=True)
        faster = statistics.median(before / after for before, after in rounds)
        share = taken[name] / taken[first]
        made.add_row(
            name,
            f"{statistics.median(seconds[name]):.2f}",
            f"{faster:.2f}",
            format_bytes(taken[name]),
            f"{share:.2f}",
            f"{error(graph, graphs[first]):.1e}",
        )
    return made, faster, share


@click.command()
@click.option("--size", default=64, show_default=True, help="Height and width of the latents.")
@click.option("--slices", default=8, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--steps", default=3, show_default=True, help="Steps to time in each process.")
@click.option("--work", "request", hidden=True)
def main(size: int, slices: int, rounds: int, steps: int, request: str | None) -> None:
    """Print one table; exit code 1 if the fused form saves less than required."""
    if request is not None:
        click.echo(json.dumps(work(json.loads(request))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        apart("export", scratch)
        graphs = {
            "as exported": folder / MODEL_FILE,
            f"in {slices} slices": changed(folder, "sliced", lambda m: slice_attention(m, slices)),
            "fused": changed(folder, "fused", fuse_attention),
        }
        taken = {name: activation_bytes(graph, size) for name, graph in graphs.items()}
        seconds: dict[str, list[float]] = {name: [] for name in graphs}
        for _ in range(rounds):
            for name, graph in graphs.items():
                seconds[name].append(apart("time", str(graph), size, steps))
        made, faster, share = table(graphs, seconds, taken)
    console = Console()
    console.print(made)
    console.print(
        f"latents {size}x{size}, {rounds} rounds of {steps} steps; "
        f"{machine_and_versions('sdpack', 'onnxruntime', 'torch')}"
    )
    if faster < FASTER or share > ACTIVATIONS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
