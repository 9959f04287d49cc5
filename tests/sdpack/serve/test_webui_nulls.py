"""The web UI's API with null in every field that its own schema has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.sdpack.serve.fakes import FakeWorker, serving

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


@pytest.fixture(scope="module")
def asking() -> Iterator[httpx.Client]:
    with serving(FakeWorker()) as (url, _, _), httpx.Client(base_url=url, timeout=20) as client:
        while client.get("/readyz").status_code != 200:
            pass
        yield client


@pytest.mark.parametrize(
    "asked",
    [
        dict.fromkeys(FIELDS),
        *({name: None} for name in FIELDS),
        {"override_settings": {"sd_model_checkpoint": None, "sd_vae": None}},
    ],
)
def test_null_draws_what_the_field_left_out_does(
    asking: httpx.Client, asked: dict[str, Any]
) -> None:
    answer = asking.post("/sdapi/v1/txt2img", json={"prompt": "a cat"} | asked)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["images"]) == 1
