from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import httpx
from PIL import Image

from tests.sdpack.runtime.webui_reader import read_infotext
from tests.sdpack.serve.clients import decoded
from tests.sdpack.serve.fakes import FakeWorker
from tests.sdpack.serve.webui_client import API, SENT_UNASKED


def test_a_picture_says_how_it_was_made(shared: httpx.Client) -> None:
    asked = {**SENT_UNASKED, "negative_prompt": "a, dog", "n_iter": 2}
    found = shared.post(f"{API}/txt2img", json=asked).json()
    info = json.loads(found["info"])
    (model,) = shared.get(f"{API}/sd-models").json()
    for number, image in enumerate(found["images"]):
        text = Image.open(io.BytesIO(base64.b64decode(image))).info["parameters"]
        assert text == info["infotexts"][number]
        prompt, negative, settings = read_infotext(text)
        assert (prompt, negative) == ("a cat", "a, dog")
        assert settings.pop("Version").startswith("sdpack")
        assert settings == {
            "Steps": "4",
            "Sampler": "DPM++ 2M",
            "Schedule type": "Karras",
            "CFG scale": "7",
            "Seed": str(4 + number),
            "Size": "64x64",
            "Model hash": model["hash"],
            "Model": "fake",
        }
    assert info["sampler_name"] == "DPM++ 2M"
    assert info["sd_model_hash"] == model["hash"]


def test_the_web_ui_of_automatic1111_can_draw(asking: httpx.Client, worker: FakeWorker) -> None:
    wanted = {"prompt": "a cat", "seed": 4, "steps": 8, "cfg_scale": 2, "n_iter": 2, "width": 96}
    more = {"sampler_name": "Euler a", "alwayson_scripts": {}, "height": 64}
    found = asking.post("/sdapi/v1/txt2img", json={**wanted, **more}).json()
    assert [decoded(image).size for image in found["images"]] == [(96, 64)] * 2
    info = json.loads(found["info"])
    assert info["all_seeds"] == [4, 5]
    assert (info["steps"], info["cfg_scale"]) == (8, 2)
    assert worker.steps[-1] == 8
    (model,) = asking.get("/sdapi/v1/sd-models").json()
    assert model["model_name"] == "fake"
    assert asking.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == model["title"]
    assert asking.post("/sdapi/v1/txt2img", json={"steps": 3}).status_code == 400


def test_the_web_ui_of_automatic1111_sees_progress_and_interrupts(
    asking: httpx.Client, worker: FakeWorker
) -> None:
    idle = asking.get("/sdapi/v1/progress").json()
    assert (idle["progress"], idle["state"]["job_count"]) == (0.0, 0)
    worker.go.clear()
    with ThreadPoolExecutor(1) as pool:
        drawing = pool.submit(asking.post, "/sdapi/v1/txt2img", json={"prompt": "a cat"})
        assert worker.begun.wait(10)
        assert asking.get("/sdapi/v1/progress").json()["state"]["job_count"] == 1
        assert asking.post("/sdapi/v1/interrupt").json() == {}
        worker.go.set()
        found = drawing.result().json()
        assert found["images"] == json.loads(found["info"])["all_seeds"] == []
