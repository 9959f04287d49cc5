from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.sdpack.serve.webui_client import API, SENT_UNASKED

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
NAMES = """
prompt negative_prompt styles seed subseed subseed_strength seed_resize_from_h seed_resize_from_w
sampler_name scheduler batch_size n_iter steps cfg_scale width height restore_faces tiling
do_not_save_samples do_not_save_grid eta denoising_strength s_min_uncond s_churn s_tmax s_tmin
s_noise override_settings override_settings_restore_afterwards refiner_checkpoint
refiner_switch_at disable_extra_networks firstpass_image comments enable_hr firstphase_width
firstphase_height hr_scale hr_upscaler hr_second_pass_steps hr_resize_x hr_resize_y
hr_checkpoint_name hr_sampler_name hr_scheduler hr_prompt hr_negative_prompt force_task_id
sampler_index script_name script_args send_images save_images alwayson_scripts infotext
"""  # of StableDiffusionTxt2ImgProcessingAPI, version 1.10
FIELDS = NAMES.split()


@pytest.mark.parametrize(("changes", "param"), CHANGES)
def test_what_would_change_the_picture_is_refused(
    shared: httpx.Client, changes: dict[str, Any], param: str
) -> None:
    answer = shared.post(f"{API}/txt2img", json={**SENT_UNASKED, **changes})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"].startswith(param)
    assert error["message"].startswith(f"{error['param']}: ")
    assert len(error["message"]) < 500


@pytest.mark.parametrize("changes", SAME)
def test_what_clients_send_anyway_is_accepted(
    shared: httpx.Client, changes: dict[str, Any]
) -> None:
    answer = shared.post(f"{API}/txt2img", json={**SENT_UNASKED, **changes})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["images"]) == 1


@pytest.mark.parametrize("name", ["v1-5-pruned.ckpt", "fake ", ["fake"], {"a": 1}, "x" * 500])
def test_another_model_is_not_here(shared: httpx.Client, name: Any) -> None:
    settings = {"sd_model_checkpoint": name}
    for path, body in (
        ("options", settings),
        ("txt2img", {**SENT_UNASKED, "override_settings": settings}),
    ):
        answer = shared.post(f"{API}/{path}", json=body)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"
        assert "fake [" in answer.json()["error"]["message"]


def test_settings_can_be_set_to_what_they_are_and_to_nothing_else(shared: httpx.Client) -> None:
    options = shared.get(f"{API}/options").json()
    assert shared.post(f"{API}/options", json=options).status_code == 200
    for name in set(options) - {"sd_model_checkpoint", "sd_checkpoint_hash"}:
        answer = shared.post(f"{API}/options", json={name: "another"})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == name
    assert shared.get(f"{API}/options").json() == options


@pytest.mark.parametrize(
    "asked",
    [
        dict.fromkeys(FIELDS),
        *({name: None} for name in FIELDS),
        {"override_settings": {"sd_model_checkpoint": None, "sd_vae": None}},
    ],
)
def test_null_draws_what_the_field_left_out_does(
    shared: httpx.Client, asked: dict[str, Any]
) -> None:
    answer = shared.post("/sdapi/v1/txt2img", json={"prompt": "a cat"} | asked)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["images"]) == 1
