"""The sampler table against diffusers' own scheduler, run beside it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import pytest
import torch
from sdpack.documents.conditioning import Family
from sdpack.errors import SchedulerError, SourceError
from sdpack.export.sampler import load_scheduler, sampler_table
from sdpack.runtime.sampler import SamplerTable, _table, sample

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULERS: dict[str, Callable[[], Any]] = {
    "DDIM": lambda: diffusers.DDIMScheduler(**BETAS, clip_sample=False, steps_offset=1),
    "DDIM v": lambda: diffusers.DDIMScheduler(
        **BETAS, clip_sample=False, prediction_type="v_prediction"
    ),
    "DDPM": lambda: diffusers.DDPMScheduler(**BETAS, clip_sample=False),
    "Euler": lambda: diffusers.EulerDiscreteScheduler(**BETAS),
    "Euler Karras": lambda: diffusers.EulerDiscreteScheduler(**BETAS, use_karras_sigmas=True),
    "Euler ancestral": lambda: diffusers.EulerAncestralDiscreteScheduler(**BETAS),
    "DPM++ 2M": lambda: diffusers.DPMSolverMultistepScheduler(**BETAS),
    "DPM++ 2M Karras": lambda: diffusers.DPMSolverMultistepScheduler(
        **BETAS, use_karras_sigmas=True
    ),
    "DPM++ 2M SDE": lambda: diffusers.DPMSolverMultistepScheduler(
        **BETAS, algorithm_type="sde-dpmsolver++"
    ),
    "PNDM": lambda: diffusers.PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1),
    "UniPC": lambda: diffusers.UniPCMultistepScheduler(**BETAS),
    "Heun": lambda: diffusers.HeunDiscreteScheduler(**BETAS),
    "LCM": lambda: diffusers.LCMScheduler(**BETAS, clip_sample=False),
    "flow-match Euler": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
}
SHAPE = (2, 4, 8, 8)


def model(x: torch.Tensor, timestep: float) -> torch.Tensor:
    """A stand-in that depends on both its arguments, and not linearly."""
    return torch.tanh(x * 0.7 + timestep / 1000) + 0.1 * x.roll(1, -1)


def by_diffusers(
    scheduler: Any, steps: int, noise: list[torch.Tensor], **settings: Any
) -> torch.Tensor:
    """As the pipelines of SDXL and Flux run it; the others do not say where it begins."""
    scheduler.set_timesteps(steps, **settings)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    takes_eta = "eta" in inspect.signature(scheduler.step).parameters
    more = {"eta": 0.0} if takes_eta else {}
    rest = iter(noise)
    latents = next(rest) * getattr(scheduler, "init_noise_sigma", 1.0)
    module = f"{type(scheduler).__module__}.randn_tensor"
    with mock.patch(module, side_effect=lambda *_, **__: next(rest), create=True):
        for t in scheduler.timesteps:
            given = latents
            if hasattr(scheduler, "scale_model_input"):
                given = scheduler.scale_model_input(latents, t)
            latents = scheduler.step(model(given, float(t)), t, latents, **more).prev_sample
    return latents


def by_table(table: SamplerTable, noise: list[torch.Tensor]) -> np.ndarray:
    rest = iter(noise)
    return sample(
        table,
        next(rest).numpy(),
        lambda x, t: model(torch.from_numpy(x), t).numpy(),
        lambda: next(rest).numpy(),
    )


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [4, 16])
def test_the_table_samples_as_the_scheduler_does(name: str, steps: int) -> None:
    g = torch.Generator().manual_seed(7)
    noise = [torch.randn(SHAPE, generator=g) for _ in range(2 * steps + 1)]
    table = sampler_table(SCHEDULERS[name](), steps)
    wanted = by_diffusers(SCHEDULERS[name](), steps, noise).numpy()
    scale = max(1.0, float(np.abs(wanted).max()))
    assert np.abs(by_table(table, noise) - wanted).max() / scale < 1e-4


def test_a_table_survives_json() -> None:
    table = sampler_table(SCHEDULERS["Euler ancestral"](), 5)
    again = _table(table.to_json())
    assert again.draws == table.draws > 0
    for key in ("timesteps", "inputs", "samples"):
        assert np.array_equal(getattr(again, key), getattr(table, key))


def test_no_step_looks_ahead() -> None:
    table = sampler_table(SCHEDULERS["UniPC"](), 9)
    for k in range(table.calls):
        assert not table.inputs[k, 1 + k :].any()
        assert not table.samples[k, 2 + k :].any()


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.DDIMScheduler(clip_sample=True),
        diffusers.DPMSolverMultistepScheduler(thresholding=True),
    ],
)
def test_a_scheduler_that_is_not_linear_is_refused_by_name(scheduler: Any) -> None:
    with pytest.raises(SchedulerError, match=type(scheduler).__name__):
        sampler_table(scheduler, 8)


def test_noise_of_a_scheduler_s_own_is_refused() -> None:
    class Own(diffusers.EulerDiscreteScheduler):
        def step(self, output: Any, timestep: Any, latents: Any, **others: Any) -> Any:
            output = output + torch.randn(output.shape)
            return super().step(output, timestep, latents, **others)

    with pytest.raises(SchedulerError, match="draws its own noise"):
        sampler_table(Own(**BETAS), 8)


def test_deriving_a_table_leaves_the_scheduler_alone() -> None:
    scheduler = SCHEDULERS["DPM++ 2M"]()
    before = scheduler.timesteps.clone()
    sampler_table(scheduler, 6)
    assert torch.equal(scheduler.timesteps, before)


def test_a_folder_without_a_scheduler_is_refused(tmp_path: Any) -> None:
    with pytest.raises(SourceError, match=r"scheduler_config\.json"):
        load_scheduler(tmp_path)
    (tmp_path / "scheduler_config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(SourceError, match="no scheduler 'UNet2DConditionModel'"):
        load_scheduler(tmp_path)


def test_the_zoo_s_scheduler_loads_by_its_class() -> None:
    from sdpack.documents.catalog_files import default_catalog

    catalog = default_catalog()
    source = catalog.catalog.sampling.scheduler.path
    assert source is not None
    scheduler = load_scheduler(catalog.path(source))
    assert type(scheduler).__name__ == "DPMSolverMultistepScheduler"
    assert sampler_table(scheduler, 16).calls == 16


def test_a_setting_that_the_class_does_not_heed_is_no_obstacle(tmp_path: Path) -> None:
    diffusers.EulerDiscreteScheduler(**BETAS).save_pretrained(tmp_path)
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "clip_sample": True}))
    assert sampler_table(load_scheduler(tmp_path, Family.SD), 4).steps == 4
    diffusers.DDIMScheduler(**BETAS, clip_sample=True).save_pretrained(tmp_path)
    with pytest.raises(SchedulerError, match="clip_sample true is not linear"):
        sampler_table(load_scheduler(tmp_path, Family.SDXL), 4)
    assert sampler_table(load_scheduler(tmp_path, Family.SD), 4).timesteps[-1] == 1


def test_a_setting_that_is_no_choice_is_told(tmp_path: Path) -> None:
    diffusers.EulerDiscreteScheduler(**BETAS).save_pretrained(tmp_path)
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "beta_schedule": "odd"}))
    with pytest.raises(SourceError, match="is not a scheduler config"):
        load_scheduler(tmp_path)


def test_a_missing_config_and_a_scheduler_with_noise_of_its_own_are_told(tmp_path: Path) -> None:
    path = tmp_path / "scheduler_config.json"
    with pytest.raises(SourceError, match=r"scheduler_config.json is missing; restore it"):
        load_scheduler(tmp_path)
    path.write_text(json.dumps({"_class_name": "DPMSolverSDEScheduler", **BETAS}))
    if find_spec("torchsde") is None:
        with pytest.raises(SourceError, match=r"with torchsde, .* such as DPMSolverMultistepSch"):
            load_scheduler(tmp_path)
