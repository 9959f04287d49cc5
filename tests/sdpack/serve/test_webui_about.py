from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image
from sdpack.serve.app import Settings
from sdpack.serve.limits import Limits

from tests.sdpack.runtime.webui_reader import read_infotext
from tests.sdpack.serve.fakes import FakeWorker, serving
from tests.sdpack.serve.webui_client import API

EMPTY = (
    "extensions",
    "face-restorers",
    "hypernetworks",
    "latent-upscale-modes",
    "loras",
    "prompt-styles",
    "realesrgan-models",
    "script-info",
    "sd-modules",
    "sd-vae",
    "upscalers",
)


def test_the_models_title_is_its_setting_and_any_of_its_names_is_taken(
    shared: httpx.Client,
) -> None:
    (model,) = shared.get(f"{API}/sd-models").json()
    options = shared.get(f"{API}/options").json()
    assert options["sd_model_checkpoint"] == model["title"]
    assert options["sd_checkpoint_hash"] == model["sha256"]
    for name in (model["title"], "fake", model["hash"], model["sha256"]):
        answer = shared.post(f"{API}/options", json={"sd_model_checkpoint": name})
        assert (answer.status_code, answer.json()) == (200, None)


def test_what_front_ends_ask_first_has_an_answer(shared: httpx.Client) -> None:
    (sampler,) = shared.get(f"{API}/samplers").json()
    assert (sampler["name"], sampler["aliases"]) == ("DPM++ 2M", ["DPMSolverMultistepScheduler"])
    (schedule,) = shared.get(f"{API}/schedulers").json()
    assert (schedule["name"], schedule["label"]) == ("karras", "Karras")
    for name in EMPTY:
        assert shared.get(f"{API}/{name}").json() == []
    assert shared.get(f"{API}/embeddings").json() == {"loaded": {}, "skipped": {}}
    assert shared.get(f"{API}/scripts").json() == {"txt2img": [], "img2img": []}
    assert shared.get(f"{API}/cmd-flags").json()["api"] is True
    ram = shared.get(f"{API}/memory").json()["ram"]
    assert 0 < ram["used"] < ram["total"]
    assert ram["free"] == ram["total"] - ram["used"]
    for name in ("checkpoints", "vae", "loras", "embeddings"):
        assert shared.post(f"{API}/refresh-{name}").json() is None


@pytest.mark.parametrize("encoding", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("prefix", ["", "data:image/any;base64,"])
def test_png_info_reads_a_picture_back(shared: httpx.Client, encoding: str, prefix: str) -> None:
    asked = {"prompt": "写实: a, b", "seed": 6, "output_format": encoding}
    (one,) = shared.post("/v1/images/generations", json=asked).json()["data"]
    found = shared.post(f"{API}/png-info", json={"image": prefix + one["b64_json"]}).json()
    assert read_infotext(found["info"])[0] == "写实: a, b"
    assert found["parameters"]["Prompt"] == "写实: a, b"
    assert (found["parameters"]["Seed"], found["parameters"]["Size-1"]) == ("6", "64")
    assert json.loads(found["items"]["sdpack"])["prompt"] == "写实: a, b"


def test_png_info_of_a_picture_that_says_nothing(shared: httpx.Client) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    body = {"image": base64.b64encode(file.getvalue()).decode()}
    found = shared.post(f"{API}/png-info", json=body).json()
    assert found == {"info": "", "items": {}, "parameters": {}}


@pytest.mark.parametrize("image", ["", "AAAA", "no base64", "data:image/png;base64,AAAA", "é"])
def test_png_info_of_what_is_no_picture_is_refused(shared: httpx.Client, image: str) -> None:
    answer = shared.post(f"{API}/png-info", json={"image": image})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_only_png_info_takes_a_large_request_and_one_at_a_time() -> None:
    """A megabyte of a picture, whose sender holds back the last byte."""
    limits = Settings(Limits(body_bytes=1000, wait_s=0))
    body = json.dumps({"image": "A" * 2**20}).encode()
    with serving(FakeWorker(), limits) as (url, _, _), httpx.Client(base_url=url) as asking:
        while asking.get("/readyz").status_code != 200:
            pass
        assert asking.post(f"{API}/txt2img", content=body).status_code == 413
        assert asking.post(f"{API}/png-info", content=body * 9).status_code == 413
        assert asking.post(f"{API}/png-info", content=body).status_code == 400  # no picture
        answered = {asking.post(f"{API}/png-info", json={"image": "AAAA"}).status_code}
        assert answered == {400}

        def slow() -> Iterator[bytes]:
            yield body[:-1]
            answers.append(asking.post(f"{API}/png-info", content=body))
            answers.append(asking.post(f"{API}/png-info", json={"image": "AAAA"}))
            yield body[-1:]

        answers: list[httpx.Response] = []
        length = {"content-length": str(len(body))}
        with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=url) as other:
            while True:  # the request before may not be quite over
                answers.clear()
                sent = pool.submit(other.post, f"{API}/png-info", content=slow(), headers=length)
                if sent.result().status_code != 503:
                    break
            assert sent.result().status_code == 400
        assert [answer.status_code for answer in answers] == [503, 400]
        assert answers[0].headers["retry-after"] == "1"
        assert asking.post(f"{API}/png-info", content=body).status_code == 400
