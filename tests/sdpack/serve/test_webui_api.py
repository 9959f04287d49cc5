from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from PIL import Image
from sdpack.serve.app import Settings
from sdpack.serve.limits import Limits

from tests.sdpack.runtime.webui_reader import read_infotext
from tests.sdpack.serve.fakes import FakeWorker, serving

API = "/sdapi/v1"

# What webuiapi 0.9.17 sends with every picture, whatever its user set.
SENT_UNASKED: dict[str, Any] = {
    "enable_hr": False,
    "hr_scale": 2,
    "hr_upscaler": "Latent",
    "hr_second_pass_steps": 0,
    "hr_resize_x": 0,
    "hr_resize_y": 0,
    "hr_checkpoint_name": None,
    "hr_sampler_name": None,
    "hr_scheduler": None,
    "hr_prompt": "",
    "hr_negative_prompt": "",
    "denoising_strength": 0.7,
    "firstphase_width": 0,
    "firstphase_height": 0,
    "prompt": "a cat",
    "styles": [],
    "seed": 4,
    "subseed": -1,
    "subseed_strength": 0.0,
    "seed_resize_from_h": 0,
    "seed_resize_from_w": 0,
    "batch_size": 1,
    "n_iter": 1,
    "steps": 4,
    "cfg_scale": 7.0,
    "width": 64,
    "height": 64,
    "restore_faces": False,
    "tiling": False,
    "do_not_save_samples": False,
    "do_not_save_grid": False,
    "negative_prompt": "",
    "eta": 1.0,
    "s_churn": 0,
    "s_tmax": 0,
    "s_tmin": 0,
    "s_noise": 1,
    "override_settings": {},
    "override_settings_restore_afterwards": True,
    "sampler_name": "Euler a",
    "scheduler": "automatic",
    "sampler_index": "Euler a",
    "script_name": None,
    "script_args": [],
    "send_images": True,
    "save_images": False,
    "alwayson_scripts": {},
}
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
UNIT = {"image": "aaaa", "module": "canny", "model": "control_canny", "weight": 1.0}
CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"enable_hr": True}, "enable_hr"),
    ({"styles": ["anime"]}, "styles"),
    ({"subseed_strength": 0.3}, "subseed_strength"),
    ({"seed_resize_from_h": 512}, "seed_resize_from_h"),
    ({"restore_faces": True}, "restore_faces"),
    ({"tiling": True}, "tiling"),
    ({"eta": 0.5}, "eta"),
    ({"s_churn": 1}, "s_churn"),
    ({"s_noise": 0}, "s_noise"),
    ({"s_min_uncond": 1}, "s_min_uncond"),
    ({"clip_skip": 2}, "clip_skip"),
    ({"refiner_checkpoint": "refiner"}, "refiner_checkpoint"),
    ({"token_merging_ratio": 0.5}, "token_merging_ratio"),
    ({"infotext": "a dog"}, "infotext"),
    ({"init_images": ["aaaa"]}, "init_images"),
    ({"script_name": "X/Y/Z Plot"}, "script_name"),
    ({"sampler_name": "DDIM"}, "sampler_name"),
    ({"sampler_name": None, "sampler_index": "LMS"}, "sampler_index"),
    ({"sampler_name": ["Euler"]}, "sampler_name"),
    ({"scheduler": "exponential"}, "scheduler"),
    ({"controlnet_units": [UNIT]}, "controlnet_units"),
    ({"alwayson_scripts": {"ControlNet": {"args": [UNIT]}}}, "alwayson_scripts"),
    ({"alwayson_scripts": {"ControlNet": {"args": [{"enabled": True}]}}}, "alwayson_scripts"),
    ({"alwayson_scripts": {"ADetailer": {"args": [True, {}]}}}, "alwayson_scripts"),
    ({"alwayson_scripts": ["ControlNet"]}, "alwayson_scripts"),
    ({"override_settings": {"CLIP_stop_at_last_layers": 2}}, "override_settings.CLIP_stop_"),
    ({"override_settings": {"sd_vae": "my.vae"}}, "override_settings.sd_vae"),
    ({"override_settings": {"emphasis": "Original"}}, "override_settings.emphasis"),
    ({"override_settings": {"samples_format": "jpg"}}, "override_settings.samples_format"),
    ({"override_settings": {"no_such_setting": 1}}, "override_settings.no_such_setting"),
    ({"override_settings": ["sd_vae"]}, "override_settings"),
    ({"prompt": "a cat <lora:fat:1.2>"}, "prompt"),
    ({"negative_prompt": "<hypernet:bad>"}, "negative_prompt"),
]
SAME: list[dict[str, Any]] = [
    {},
    {"enable_hr": None, "tiling": None, "eta": None, "s_noise": None, "styles": None},
    {"eta": 0.0, "seed_resize_from_h": -1, "seed_resize_from_w": -1, "clip_skip": 1},
    {"sampler_name": "DPM++ 2M", "scheduler": "Karras"},
    {"sampler_name": "dpm++ 2m karras", "sampler_index": "DDIM", "scheduler": None},
    {"sampler_name": "", "sampler_index": None},
    {"script_name": "None", "refiner_checkpoint": "None"},
    {"alwayson_scripts": {"ADetailer": {"args": [False, {"ad_model": "face"}]}}},
    {"alwayson_scripts": {"ControlNet": {"args": []}, "animatediff": {"args": [False]}}},
    {"alwayson_scripts": {"ControlNet": {"args": [{**UNIT, "enabled": False}, None]}}},
    {"alwayson_scripts": {"Sampler": {}}},
    {"override_settings": {"sd_vae": "Automatic", "CLIP_stop_at_last_layers": 1, "grid_save": 0}},
    {"override_settings": {"sd_model_checkpoint": "fake", "outdir_samples": "x"}},
    {"prompt": "a < b and c > d, <notalora:1>"},
    {"distilled_cfg_scale": 3.5, "a_field_of_a_fork": True},
]


@pytest.fixture(scope="module")
def asking() -> Iterator[httpx.Client]:
    with serving(FakeWorker()) as (url, _, _), httpx.Client(base_url=url, timeout=20) as made:
        while made.get("/readyz").status_code != 200:
            pass
        yield made


@pytest.mark.parametrize(("changes", "param"), CHANGES)
def test_what_would_change_the_picture_is_refused(
    asking: httpx.Client, changes: dict[str, Any], param: str
) -> None:
    answer = asking.post(f"{API}/txt2img", json={**SENT_UNASKED, **changes})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"].startswith(param)
    assert error["message"].startswith(f"{error['param']}: ")
    assert len(error["message"]) < 500


@pytest.mark.parametrize("changes", SAME)
def test_what_clients_send_anyway_is_accepted(
    asking: httpx.Client, changes: dict[str, Any]
) -> None:
    answer = asking.post(f"{API}/txt2img", json={**SENT_UNASKED, **changes})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["images"]) == 1


def test_a_picture_says_how_it_was_made(asking: httpx.Client) -> None:
    asked = {**SENT_UNASKED, "negative_prompt": "a, dog", "n_iter": 2}
    found = asking.post(f"{API}/txt2img", json=asked).json()
    info = json.loads(found["info"])
    (model,) = asking.get(f"{API}/sd-models").json()
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


def test_the_models_title_is_its_setting_and_any_of_its_names_is_taken(
    asking: httpx.Client,
) -> None:
    (model,) = asking.get(f"{API}/sd-models").json()
    options = asking.get(f"{API}/options").json()
    assert options["sd_model_checkpoint"] == model["title"]
    assert options["sd_checkpoint_hash"] == model["sha256"]
    for name in (model["title"], "fake", model["hash"], model["sha256"]):
        answer = asking.post(f"{API}/options", json={"sd_model_checkpoint": name})
        assert (answer.status_code, answer.json()) == (200, None)


@pytest.mark.parametrize("name", ["v1-5-pruned.ckpt", "fake ", ["fake"], {"a": 1}, "x" * 500])
def test_another_model_is_not_here(asking: httpx.Client, name: Any) -> None:
    settings = {"sd_model_checkpoint": name}
    for path, body in (
        ("options", settings),
        ("txt2img", {**SENT_UNASKED, "override_settings": settings}),
    ):
        answer = asking.post(f"{API}/{path}", json=body)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"
        assert "fake [" in answer.json()["error"]["message"]


def test_settings_can_be_set_to_what_they_are_and_to_nothing_else(asking: httpx.Client) -> None:
    options = asking.get(f"{API}/options").json()
    assert asking.post(f"{API}/options", json=options).status_code == 200
    for name in set(options) - {"sd_model_checkpoint", "sd_checkpoint_hash"}:
        answer = asking.post(f"{API}/options", json={name: "another"})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == name
    assert asking.get(f"{API}/options").json() == options


def test_what_front_ends_ask_first_has_an_answer(asking: httpx.Client) -> None:
    (sampler,) = asking.get(f"{API}/samplers").json()
    assert (sampler["name"], sampler["aliases"]) == ("DPM++ 2M", ["DPMSolverMultistepScheduler"])
    (schedule,) = asking.get(f"{API}/schedulers").json()
    assert (schedule["name"], schedule["label"]) == ("karras", "Karras")
    for name in EMPTY:
        assert asking.get(f"{API}/{name}").json() == []
    assert asking.get(f"{API}/embeddings").json() == {"loaded": {}, "skipped": {}}
    assert asking.get(f"{API}/scripts").json() == {"txt2img": [], "img2img": []}
    assert asking.get(f"{API}/cmd-flags").json()["api"] is True
    ram = asking.get(f"{API}/memory").json()["ram"]
    assert 0 < ram["used"] < ram["total"]
    assert ram["free"] == ram["total"] - ram["used"]
    for name in ("checkpoints", "vae", "loras", "embeddings"):
        assert asking.post(f"{API}/refresh-{name}").json() is None


@pytest.mark.parametrize("encoding", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("prefix", ["", "data:image/any;base64,"])
def test_png_info_reads_a_picture_back(asking: httpx.Client, encoding: str, prefix: str) -> None:
    asked = {"prompt": "写实: a, b", "seed": 6, "output_format": encoding}
    (one,) = asking.post("/v1/images/generations", json=asked).json()["data"]
    found = asking.post(f"{API}/png-info", json={"image": prefix + one["b64_json"]}).json()
    assert read_infotext(found["info"])[0] == "写实: a, b"
    assert found["parameters"]["Prompt"] == "写实: a, b"
    assert (found["parameters"]["Seed"], found["parameters"]["Size-1"]) == ("6", "64")
    assert json.loads(found["items"]["sdpack"])["prompt"] == "写实: a, b"


def test_png_info_of_a_picture_that_says_nothing(asking: httpx.Client) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    body = {"image": base64.b64encode(file.getvalue()).decode()}
    found = asking.post(f"{API}/png-info", json=body).json()
    assert found == {"info": "", "items": {}, "parameters": {}}


@pytest.mark.parametrize("image", ["", "AAAA", "no base64", "data:image/png;base64,AAAA", "é"])
def test_png_info_of_what_is_no_picture_is_refused(asking: httpx.Client, image: str) -> None:
    answer = asking.post(f"{API}/png-info", json={"image": image})
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
