"""A built bundle behind HTTP, in a process of its own, with the clients people have."""

from __future__ import annotations

import base64
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from numpy.typing import NDArray
from PIL import Image
from sdpack.documents.bundle import open_bundle
from sdpack.runtime.bundle import pipeline, request
from sdpack.serve.service import OWN_BYTES

PROMPTS = ["noto, pizza", "twemoji, red heart", "noto, cat face", "twemoji, pizza"]
NO_TORCH = (
    "import sys\n"
    "for name in ('torch', 'diffusers', 'transformers', 'onnx', 'onnx_ir', 'optimum', 'scipy'):\n"
    "    sys.modules[name] = None\n"
    "from sdpack.cli.main import main\n"
    "main()\n"
)


@contextmanager
def serving(bundle: Path, *more: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Where a server is that is ready, where nothing but what a device has can be imported."""
    words = ["serve", str(bundle), "--port", "0", *more]
    process = subprocess.Popen(
        [sys.executable, "-c", NO_TORCH, *words], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        url = first.split()[2].rstrip(":")
        assert process.stderr.readline() == "bundle is ready\n", first
        yield url, process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def url(bundle: Path) -> Iterator[str]:
    with serving(bundle) as (where, _):
        yield where


def pixels(encoded: str | None) -> NDArray[np.int64]:
    assert encoded is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)))).astype(int)


def test_openais_own_client_draws_what_the_bundle_draws(bundle: Path, url: str) -> None:
    manifest = open_bundle(bundle)
    wanted = pipeline(bundle, manifest).draw(
        request(manifest, PROMPTS[:1] * 2, [3, 4], guidance_scale=2.0, steps=6)
    )
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["bundle"]
        found = client.images.generate(
            prompt=PROMPTS[0],
            model="bundle",
            n=2,
            size="auto",
            extra_body={"seed": 3, "guidance_scale": 2.0, "steps": 6},
        )
        assert found.data is not None
        drawn = np.stack([pixels(one.b64_json) for one in found.data])
        assert np.abs(drawn - wanted).max() <= 2
        with pytest.raises(openai.BadRequestError, match="size: '1x1'"):
            client.images.generate(prompt="a", size="1x1")
        with pytest.raises(openai.NotFoundError, match="dall-e-3"):
            client.images.generate(prompt="a", model="dall-e-3")


def test_a_picture_is_the_same_whatever_it_is_drawn_with(url: str) -> None:
    def draw(number: int) -> NDArray[np.int64]:
        asked = {"prompt": PROMPTS[number % 4], "seed": number}
        answer = httpx.post(f"{url}/v1/images/generations", json=asked, timeout=60)
        return pixels(answer.json()["data"][0]["b64_json"])

    alone = [draw(number) for number in range(8)]
    before = together(url)
    with ThreadPoolExecutor(8) as pool:
        crowded = list(pool.map(draw, range(8)))
    assert together(url) > before, "no two were drawn together"
    assert max(np.abs(one - other).max() for one, other in zip(alone, crowded, strict=True)) <= 2
    assert np.abs(alone[0] - alone[1]).max() > 10


def test_under_full_load_it_takes_what_was_planned_and_a_servers_own(bundle: Path) -> None:
    planned = open_bundle(bundle).memory.predicted_bytes
    with serving(bundle, "--least-memory") as (url, process), ThreadPoolExecutor(16) as pool:
        asked = {"prompt": PROMPTS[0], "n": 4}
        address = f"{url}/v1/images/generations"
        answers = [pool.submit(httpx.post, address, json=asked, timeout=120) for _ in range(48)]
        assert {one.result().status_code for one in answers} == {200}
        assert together(url) >= 40
        peak = peak_bytes(process.pid)
    assert 0.5 * planned < peak <= planned + OWN_BYTES


def peak_bytes(pid: int) -> int:
    """The most a process has had resident."""
    (line,) = [
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    ]
    return int(line.split()[1]) * 1024


def together(url: str) -> float:
    """How many batches had more than one picture."""
    values = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in httpx.get(f"{url}/metrics").text.splitlines()
        if line.startswith("sdpack_batch_size_")
    }
    alone = values['sdpack_batch_size_bucket{le="1.0"}']
    return values["sdpack_batch_size_count"] - alone


def test_told_to_end_in_the_middle_it_finishes_what_was_accepted(bundle: Path) -> None:
    with serving(bundle) as (url, process), ThreadPoolExecutor(8) as pool:
        asked: dict[str, Any] = {"prompt": PROMPTS[0], "n": 5, "steps": 25}
        address = f"{url}/v1/images/generations"
        waiting = [pool.submit(httpx.post, address, json=asked, timeout=60) for _ in range(6)]
        job = httpx.post(f"{url}/v1/jobs", json=asked).headers["location"]
        deadline = time.monotonic() + 20
        while depth(url) < 20:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGTERM)
        answers = [one.result() for one in waiting]
        done = httpx.get(f"{url}{job}").json()
        while done["status"] in ("queued", "running"):
            done = httpx.get(f"{url}{job}").json()
        pictures = [httpx.get(one["url"]) for one in done["data"]]
        assert process.wait(30) == 0
    assert [answer.status_code for answer in answers] == [200] * 6
    assert [len(answer.json()["data"]) for answer in answers] == [5] * 6
    assert [picture.status_code for picture in pictures] == [200] * 5


def depth(url: str) -> float:
    """How many pictures wait."""
    (line,) = [
        line
        for line in httpx.get(f"{url}/metrics").text.splitlines()
        if line.startswith("sdpack_queue_depth ")
    ]
    return float(line.split()[1])


def test_options_from_the_environment_and_a_key(bundle: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef-one\n0123456789abcdef-two\n")
    os.environ["SDPACK_API_KEY_FILE"] = str(keys)
    try:
        with serving(bundle) as (url, process):
            assert httpx.get(f"{url}/v1/models").status_code == 401
            for key in keys.read_text().split():
                with openai.OpenAI(base_url=f"{url}/v1", api_key=key) as client:
                    assert [model.id for model in client.models.list()] == ["bundle"]
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            said = process.stderr.read()
            assert process.wait(30) == 0
        assert "0123456789abcdef" not in said
    finally:
        del os.environ["SDPACK_API_KEY_FILE"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--port", "1", "--host", "203.0.113.1"), 1, "cannot listen on"),
        (("--batch", "9"), 2, "built for batches of 4"),
        (("--api-key-file", "absent"), 2, "cannot be read"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line(
    bundle: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sdpack", "serve", str(bundle), *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr
