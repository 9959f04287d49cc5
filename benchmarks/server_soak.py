"""A server with good and bad clients: python -m benchmarks.server_soak [--minutes 10]

The server gets valid requests, invalid ones, cancellations, clients that disconnect early and
clients that send or read very slowly, all at the same time. The table shows resident memory, the
outcome of every accepted job, and errors of the server. Growth of memory is the slope of a line
through the minima in the later parts of the run, because the server first fills its limited store
of jobs.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import click
import httpx
import numpy as np
from rich.console import Console
from rich.table import Table
from sdpack.units import format_bytes

from benchmarks.measured_on import machine_and_versions
from benchmarks.serving_throughput import Running, free_port, started, zoo_bundle

EVERY_S = 0.5
WINDOW = 40  # looks
GENERATE = "/v1/images/generations"
NONSENSE: tuple[dict[str, object], ...] = (
    {},
    {"prompt": 3},
    {"prompt": "a", "n": 10**9},
    {"prompt": "a", "size": "7x7"},
    {"prompt": "a" * 10_000},
    {"prompt": "a", "steps": -1},
    {"prompt": "a", "model": "another"},
)
RAW = (
    b"POST /v1/images/generations HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
)


@dataclass
class Observations:
    """The observations of the clients."""

    statuses: Counter[str] = field(default_factory=Counter)
    jobs: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    resident: list[tuple[float, int]] = field(default_factory=list)

    def note_memory(self, resident_bytes: int) -> None:
        self.resident.append((time.monotonic(), resident_bytes))

    def note_loss(self, what: str) -> None:
        """Note something that a client was promised and did not get."""
        self.lost.append(what)

    @property
    def floors(self) -> list[tuple[float, int]]:
        """Return the end of each window of WINDOW samples, and the smallest resident memory in it.

        Minima are used because images being drawn temporarily take some megabytes.
        """
        cut = [self.resident[n : n + WINDOW] for n in range(0, len(self.resident), WINDOW)]
        return [(looks[-1][0], min(size for _, size in looks)) for looks in cut]

    def slope(self, share: float) -> float:
        """Return the slope of the minima in bytes per minute, over the last part of the time."""
        settled = self.floors[round(len(self.floors) * (1 - share)) :]
        moments, sizes = np.array(settled, float).T
        return float(np.polyfit(moments / 60, sizes, 1)[0])


class Clients:
    """All kinds of clients; each runs until the time is over."""

    def __init__(self, running: Running, until: float) -> None:
        self.running = running
        self.until = until
        self.observed = Observations()
        self.port = int(running.url.rpartition(":")[2])
        self._chance = random.Random(0)

    async def run(self) -> None:
        async with httpx.AsyncClient(base_url=self.running.url, timeout=120) as browser:
            self.browser = browser
            kinds = [self.proper] * 4 + [self.follower] * 2 + [self.nonsense] * 2
            kinds += [self.canceller] * 2 + [self.leaver] * 2 + [self.slow] * 2
            await asyncio.gather(self.watch(), *(self.again(kind) for kind in kinds))

    async def again(self, act: Callable[[], Awaitable[None]]) -> None:
        while time.monotonic() < self.until:
            await act()

    async def watch(self) -> None:
        while time.monotonic() < self.until:
            self.observed.note_memory(self.running.resident_bytes)
            await asyncio.sleep(EVERY_S)

    async def ask(self, path: str, body: dict[str, object]) -> httpx.Response:
        answer = await self.browser.post(path, json=body)
        self.observed.statuses[str(answer.status_code)] += 1
        if answer.status_code == 429:
            await asyncio.sleep(0.5)
        return answer

    def wanted(self, most: int = 3) -> dict[str, object]:
        words = f"noto, pizza {self._chance.random()}"
        return {"prompt": words, "n": self._chance.randint(1, most)}

    async def proper(self) -> None:
        wanted = self.wanted()
        answer = await self.ask(GENERATE, wanted)
        if answer.status_code == 200 and len(answer.json()["data"]) != wanted["n"]:
            self.observed.note_loss("an image of a request")

    async def follower(self) -> None:
        answer = await self.ask("/v1/jobs", self.wanted())
        if answer.status_code != 202:
            return
        path = answer.headers["location"]
        async with self.browser.stream(
            "GET", path, headers={"accept": "text/event-stream"}
        ) as stream:
            lines = [line async for line in stream.aiter_lines() if line.startswith("event")]
        self.observed.jobs[lines[-1].removeprefix("event: ")] += 1
        for image in (await self.browser.get(path)).json()["data"]:
            if (await self.browser.get(image["url"])).status_code != 200:
                self.observed.note_loss(image["url"])

    async def nonsense(self) -> None:
        await self.ask(self._chance.choice((GENERATE, "/v1/jobs")), self._chance.choice(NONSENSE))
        await asyncio.sleep(0.05)

    async def canceller(self) -> None:
        answer = await self.ask("/v1/jobs", self.wanted(8))
        if answer.status_code != 202:
            return
        path = answer.headers["location"]
        await asyncio.sleep(self._chance.random())
        status = (await self.browser.delete(path)).json()["status"]
        self.observed.jobs[status] += 1
        if status == "done":
            for image in (await self.browser.get(path)).json()["data"]:
                await self.browser.get(image["url"])

    async def leaver(self) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = b'{"prompt": "noto, gone", "n": 4}'
        writer.write(RAW + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        await asyncio.sleep(self._chance.random() / 2)
        writer.close()
        self.observed.statuses["left"] += 1

    async def slow(self) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for byte in RAW:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.1)
                if time.monotonic() > self.until:
                    break
        except OSError:
            pass
        writer.close()
        self.observed.statuses["slow"] += 1


async def settled(url: str) -> float:
    """Return the number of waiting images some time after the last request."""
    async with httpx.AsyncClient(base_url=url) as browser:
        for _ in range(200):
            text = (await browser.get("/metrics")).text
            (line,) = [x for x in text.splitlines() if x.startswith("sdpack_queue_depth ")]
            depth = float(line.split()[1])
            if depth == 0:
                break
            await asyncio.sleep(0.1)
    return depth


@click.command()
@click.option(
    "--bundle",
    type=click.Path(exists=True, path_type=Path),
    help="Bundle; default: one of the zoo.",
)
@click.option("--minutes", default=10.0, show_default=True)
def main(bundle: Path | None, minutes: float) -> None:
    """Print one table."""
    console, port = Console(width=110), free_port()
    chosen = bundle or zoo_bundle()
    command = [sys.executable, "-m", "sdpack", "serve", str(chosen), "--port", str(port)]
    command += ["--runtime", "onnxruntime-cpu"]
    with started(command, port) as running:
        clients = Clients(running, time.monotonic() + 60 * minutes)
        asyncio.run(clients.run())
        depth = asyncio.run(settled(running.url))
    observed = clients.observed
    sizes = [size for _, size in observed.resident]
    floors = [size for _, size in observed.floors]
    table = Table(title=f"{chosen.name}, {minutes:g} minutes", title_justify="left")
    table.add_column("what")
    table.add_column("seen", justify="right")
    for name, count in sorted(observed.statuses.items()):
        table.add_row(f"answers: {name}", str(count))
    for name, count in sorted(observed.jobs.items()):
        table.add_row(f"jobs: {name}", str(count))
    faults = sum(count for name, count in observed.statuses.items() if name.startswith("5"))
    for name, value in (
        ("answers that were the server's fault", str(faults)),
        ("accepted and lost", str(len(observed.lost))),
        ("pictures still waiting afterwards", f"{depth:g}"),
        ("least resident in 20 s, after a fifth of it", format_bytes(floors[len(floors) // 5])),
        ("least resident in 20 s, at the end", format_bytes(min(floors[-2:]))),
        ("resident at most", format_bytes(max(sizes))),
        ("slope a minute, last four fifths", f"{observed.slope(0.8) / 1024:+.0f} KiB"),
        ("slope a minute, last half", f"{observed.slope(0.5) / 1024:+.0f} KiB"),
        ("slope a minute, last quarter", f"{observed.slope(0.25) / 1024:+.0f} KiB"),
        ("exit status", str(running.process.returncode)),
    ):
        table.add_row(name, value)
    console.print(table)
    console.print(machine_and_versions("sdpack", "onnxruntime"))


if __name__ == "__main__":
    main()
