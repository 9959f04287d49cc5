"""Throughput of `sdpack serve`, with and without batches, and of optimum behind FastAPI:

    python -m benchmarks.serving_throughput [--clients 1,8,32] [--requests 48]

Each server is a separate process. Clients request one image after the other, with the same prompts
and seeds for all servers. The first table shows the time to start, the second the throughput.
optimum has its own environment, created once.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import httpx
import numpy as np
from rich.console import Console
from rich.table import Table
from sdpack.documents.bundle import open_bundle
from sdpack.documents.layout import ONNX
from sdpack.documents.manifest import Manifest
from sdpack.store.artifacts import cache_folder
from sdpack.units import format_bytes

from benchmarks.environments import interpreter
from benchmarks.measured_on import machine_and_versions
from benchmarks.metering import family, memory
from benchmarks.optimum_pipeline import PACKAGES

PROMPTS = ["noto, red heart", "twemoji, pizza", "fluent-flat, cat face", "noto, soccer ball"]
RIVAL = ("fastapi==0.165.0", "uvicorn==0.54.0")
EVERY_S = 0.02
START_LIMIT_S = 300
PLAIN = """
import base64, io, sys, threading
import torch, uvicorn
from fastapi import FastAPI
from optimum.onnxruntime import ORTStableDiffusionPipeline
from pydantic import BaseModel
folder, port, steps, scale, side = sys.argv[1:]
pipeline = ORTStableDiffusionPipeline.from_pretrained(folder, export=False)
pipeline.set_progress_bar_config(disable=True)
alone = threading.Lock()
app = FastAPI()
class ImageRequest(BaseModel):
    prompt: str
    seed: int = 0
@app.get("/readyz")
def ready():
    return {}
@app.post("/v1/images/generations")
def generate(asked: ImageRequest):
    with alone:
        (image,) = pipeline(
            asked.prompt, num_inference_steps=int(steps), guidance_scale=float(scale),
            height=int(side), width=int(side), generator=torch.Generator().manual_seed(asked.seed),
        ).images
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"data": [{"b64_json": base64.b64encode(file.getvalue()).decode()}]}
pipeline("warm-up", num_inference_steps=1, height=int(side), width=int(side))
uvicorn.run(app, port=int(port), log_level="error")
"""


@dataclass(frozen=True)
class Loaded:
    """The results for a number of clients.

    Attributes:
        latencies: seconds of each request.
        batch: average batch size; None if the server does not report it.
    """

    clients: int
    seconds: float
    latencies: Sequence[float]
    peak_bytes: int
    batch: float | None
    failed: int


@dataclass
class Running:
    """A server that has started."""

    url: str
    process: subprocess.Popen[bytes]
    ready_s: float
    ready_bytes: int

    @property
    def resident_bytes(self) -> int:
        return sum(memory(one)[1] for one in family(self.process.pid))


@contextmanager
def started(command: Sequence[str | Path], port: int) -> Iterator[Running]:
    """Run a server at a port until the end of the `with` statement."""
    url, since = f"http://127.0.0.1:{port}", time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while not _answers(url):
            if process.poll() is not None or time.perf_counter() - since > START_LIMIT_S:
                sys.exit(f"{command[0]} did not start")
            time.sleep(EVERY_S)
        running = Running(url, process, time.perf_counter() - since, 0)
        running.ready_bytes = running.resident_bytes
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def load(running: Running, clients: int, requests: int) -> Loaded:
    """Let a number of clients request a total number of images."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], running.resident_bytes)
            done.wait(EVERY_S)

    watcher = threading.Thread(target=watch)
    before = _batches(running.url)
    watcher.start()
    since = time.perf_counter()
    latencies, failed = asyncio.run(_ask(running.url, clients, requests))
    seconds = time.perf_counter() - since
    done.set()
    watcher.join()
    after = _batches(running.url)
    batch = None
    if before is not None and after is not None:
        batch = (after[1] - before[1]) / (after[0] - before[0])
    return Loaded(clients, seconds, latencies, peak[0], batch, failed)


async def _ask(url: str, clients: int, requests: int) -> tuple[list[float], int]:
    left, latencies, failed = iter(range(requests)), [], 0

    async def client(browser: httpx.AsyncClient) -> None:
        nonlocal failed
        for number in left:
            asked = {"prompt": PROMPTS[number % len(PROMPTS)], "seed": number}
            since = time.perf_counter()
            answer = await browser.post(f"{url}/v1/images/generations", json=asked)
            latencies.append(time.perf_counter() - since)
            failed += answer.status_code != 200

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(timeout=600, limits=limits) as browser:
        await asyncio.gather(*(client(browser) for _ in range(clients)))
    return latencies, failed


def _batches(url: str) -> tuple[float, float] | None:
    """Return the number of batches and the number of images in them."""
    answer = httpx.get(f"{url}/metrics")
    if answer.status_code != 200:
        return None
    values = dict(
        line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#")
    )
    return float(values["sdpack_batch_size_count"]), float(values["sdpack_batch_size_sum"])


def zoo_bundle() -> Path:
    """Return the zoo's best bundle for a small CPU with batches of up to 8, built once."""
    out = cache_folder() / "benchmarks" / "serve" / "zoo-cpu"
    if not (out / "manifest.json").exists():
        words = ["build", "--profile", "cpu-2gb", "--images", "16", "--batch", "1-8"]
        command = [sys.executable, "-m", "sdpack", *words, "--out", str(out)]
        subprocess.run(command, check=True)
    return out


def servers(bundle: Path, manifest: Manifest, port: int) -> dict[str, list[str | Path]]:
    """Return the command that starts each server."""
    ours: list[str | Path] = [sys.executable, "-m", "sdpack", "serve", bundle]
    ours += ["--port", str(port)]
    ours += ["--runtime", "onnxruntime-cpu"]
    sampling = manifest.sampling
    python = interpreter("optimum-served", (*PACKAGES, *RIVAL))
    settings = (sampling.steps, sampling.guidance_scale, sampling.height)
    words = [str(bundle / ONNX), str(port), *map(str, settings)]
    return {
        "sdpack": ours,
        "sdpack, no batches": [*ours, "--batch", "1"],
        "optimum, plain FastAPI": [python, "-c", PLAIN, *words],
    }


@click.command()
@click.option(
    "--bundle",
    type=click.Path(exists=True, path_type=Path),
    help="Bundle; default: one of the zoo.",
)
@click.option("--clients", default="1,8,32", show_default=True)
@click.option(
    "--requests", default=48, show_default=True, help="Total number of requests of all clients."
)
@click.option("--rounds", default=3, show_default=True, help="Number of repetitions.")
def main(bundle: Path | None, clients: str, requests: int, rounds: int) -> None:
    """Print two tables."""
    console = Console(width=120)
    chosen = bundle or zoo_bundle()
    manifest, port = open_bundle(chosen), free_port()
    counts = [int(word) for word in clients.split(",")]
    starts: dict[str, list[Running]] = {}
    loads: dict[tuple[int, str], list[Loaded]] = {}
    for _ in range(rounds):
        for name, command in servers(chosen, manifest, port).items():
            with started(command, port) as running:
                starts.setdefault(name, []).append(running)
                for count in counts:
                    loads.setdefault((count, name), []).append(load(running, count, requests))
    console.print(starts_table(starts))
    console.print(loads_table(loads, requests))
    console.print(
        f"{chosen.name}: {manifest.sampling.steps} steps, batch {manifest.sampling.batch}; "
        f"{machine_and_versions('sdpack', 'onnxruntime')}, {', '.join(PACKAGES[:2])}; "
        f"medians of {rounds} rounds; "
        f"predicted for the bundle alone {format_bytes(manifest.memory.predicted_bytes)} of "
        f"{format_bytes(manifest.memory.budget_bytes)}"
    )


def starts_table(starts: dict[str, list[Running]]) -> Table:
    """Return a table of each server's time to become ready, and its memory then."""
    table = Table(title="from start to ready", title_justify="left")
    for column in ("server", "ready", "resident then"):
        table.add_column(column, justify="left" if column == "server" else "right")
    for name, runs in starts.items():
        seconds = float(np.median([run.ready_s for run in runs]))
        taken = int(np.median([run.ready_bytes for run in runs]))
        table.add_row(name, f"{seconds:.2f} s", format_bytes(taken))
    return table


def loads_table(loads: dict[tuple[int, str], list[Loaded]], requests: int) -> Table:
    """Return a table of throughput, latencies and memory."""
    table = Table(title=f"{requests} pictures", title_justify="left")
    columns = ("clients", "server", "pictures/s", "p50", "p95", "p99", "peak", "batch", "failed")
    for column in columns:
        table.add_column(column, justify="left" if column == "server" else "right")
    for (clients, name), runs in sorted(loads.items(), key=lambda item: item[0][0]):
        rate = float(np.median([requests / run.seconds for run in runs]))
        shares = np.median([np.percentile(run.latencies, (50, 95, 99)) for run in runs], axis=0)
        batches = [run.batch for run in runs if run.batch is not None]
        table.add_row(
            str(clients),
            name,
            f"{rate:.2f}",
            *(f"{share:.2f} s" for share in shares),
            format_bytes(max(run.peak_bytes for run in runs)),
            f"{np.median(batches):.1f}" if batches else "",
            str(sum(run.failed for run in runs)),
        )
    return table


if __name__ == "__main__":
    main()
