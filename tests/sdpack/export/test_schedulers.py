"""Every scheduler of diffusers that text-to-image pipelines use, setting by setting.

A setting is either sampled as diffusers' own scheduler samples it, run beside it here, or refused
in one line that names what to change.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from sdpack.documents.conditioning import Family
from sdpack.errors import SchedulerError
from sdpack.export.sampler import RunSettings, sampler_table, scheduler_table

from tests.sdpack.export.test_sampler import by_diffusers, by_table

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
COSINE = "squaredcos_cap_v2"
SHAPE = (1, 4, 4, 4)
TERSE = (1, 2)
STEPS = 5
MU = 0.8
ON_BETAS = [
    "DDIM",
    "DDIMParallel",
    "DDPM",
    "DDPMParallel",
    "DEISMultistep",
    "DPMSolverMultistep",
    "DPMSolverSinglestep",
    "EulerAncestralDiscrete",
    "EulerDiscrete",
    "HeunDiscrete",
    "KDPM2AncestralDiscrete",
    "KDPM2Discrete",
    "LCM",
    "LMSDiscrete",
    "PNDM",
    "SASolver",
    "TCD",
    "UniPCMultistep",
]
OTHERS = [
    "EDMDPMSolverMultistep",
    "EDMEuler",
    "FlowMatchEulerDiscrete",
    "FlowMatchHeunDiscrete",
    "IPNDM",
]
FLAGS = [
    "euler_at_final",
    "invert_sigmas",
    "lower_order_final",
    "predict_x0",
    "set_alpha_to_one",
    "skip_prk_steps",
    "stochastic_sampling",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_flow_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
]
SPACED = ("use_beta_sigmas", "use_exponential_sigmas", "use_karras_sigmas", "use_lu_lambdas")
CHOICES: dict[str, tuple[Any, ...]] = {
    "beta_schedule": ("linear", COSINE),
    "corrector_order": (1, 3),
    "disable_corrector": ([0],),
    "final_sigmas_type": ("sigma_min",),
    "flow_shift": (3.0,),
    "interpolation_type": ("log_linear",),
    "lambda_min_clipped": (-5.1,),
    "original_inference_steps": (40,),
    "predictor_order": (1, 3),
    "shift": (3.0,),
    "sigma_schedule": ("exponential",),
    "solver_order": (1, 3),
    "steps_offset": (1,),
    "time_shift_type": ("linear",),
    "timestep_spacing": ("leading", "linspace", "trailing"),
    "timestep_type": ("continuous",),
}
# Values that only some classes have.
OF_CLASS: dict[str, dict[str, tuple[Any, ...]]] = {
    "DPMSolverMultistep": {
        "algorithm_type": ("sde-dpmsolver++",),
        "solver_type": ("heun",),
    },
    "DPMSolverSinglestep": {"algorithm_type": ("sde-dpmsolver++",), "solver_type": ("heun",)},
    "EDMDPMSolverMultistep": {"solver_type": ("heun",)},
    "FlowMatchEulerDiscrete": {"shift_terminal": (0.1,)},
    "SASolver": {"algorithm_type": ("noise_prediction",)},
    "DDPM": {"variance_type": ("fixed_small_log", "fixed_large")},
}
PREDICTIONS = ("epsilon", "v_prediction", "sample")
NO_SAMPLES = [
    "EDMDPMSolverMultistep",
    "EDMEuler",
    "EulerAncestralDiscrete",
    "KDPM2AncestralDiscrete",
    "KDPM2Discrete",
    "PNDM",
]
SLOW = ("HeunDiscrete", "KDPM2AncestralDiscrete", "KDPM2Discrete", "LMSDiscrete")  # to be made
# At the noisiest timestep these divide by the share of the picture, which is then 0.
DIVIDING = ("DDIM", "DDIMParallel", "DDPM", "DDPMParallel", "LCM", "TCD")
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


def heeded(name: str) -> Any:
    return inspect.signature(getattr(diffusers, f"{name}Scheduler").__init__).parameters


def made(name: str, **settings: Any) -> Any:
    known = heeded(name)
    usual = {**BETAS, "clip_sample": False, "skip_prk_steps": True}
    usual |= {"num_train_timesteps": 100} if name in SLOW else {}
    values = {**{key: value for key, value in usual.items() if key in known}, **settings}
    return getattr(diffusers, f"{name}Scheduler")(**values)


def settings_of(name: str) -> Iterator[dict[str, Any]]:
    """The usual settings, and each other one alone."""
    known = heeded(name)
    yield {}
    for flag in (flag for flag in FLAGS if flag in known):
        if flag != "skip_prk_steps":
            yield {flag: not known[flag].default}
    choices = {**CHOICES, **OF_CLASS.get(name, {})}
    for key, values in choices.items():
        if key in known:
            yield from ({key: value} for value in values)
    if "prediction_type" in known:
        predicted = [p for p in PREDICTIONS if p != "sample" or name not in NO_SAMPLES]
        yield from ({"prediction_type": p} for p in predicted)
    if "beta_schedule" in known:
        yield from ({key: True, "beta_schedule": COSINE} for key in SPACED if key in known)
    if "rescale_betas_zero_snr" in known:
        yield {**ZERO_SNR, "prediction_type": "v_prediction"}
        if name not in DIVIDING:
            yield ZERO_SNR


def is_refused(name: str, settings: dict[str, Any]) -> bool:
    """Those of them that cannot be sampled; each is in a test of its own."""
    if name == "UniPCMultistep":
        return settings in ({"lower_order_final": False}, {"predict_x0": False})
    return name == "KDPM2AncestralDiscrete" and settings.get("beta_schedule") == COSINE


def compare(name: str, settings: dict[str, Any], steps: int) -> float:
    """By how much a table is off diffusers' own scheduler, with a model that is not linear."""
    mu = MU if settings.get("use_dynamic_shifting") else None
    table = sampler_table(made(name, **settings), steps, RunSettings(mu=mu))
    g = torch.Generator().manual_seed(7)
    noise = [torch.randn(SHAPE, generator=g) for _ in range(2 * steps + 1)]
    more = {} if mu is None else {"mu": mu}
    wanted = by_diffusers(made(name, **settings), steps, noise, **more).numpy()
    assert np.isfinite(wanted).all()
    return float(np.abs(by_table(table, noise) - wanted).max() / max(1.0, np.abs(wanted).max()))


@pytest.mark.parametrize("name", [*ON_BETAS, *OTHERS])
def test_every_setting_is_sampled_as_diffusers_samples_it(name: str) -> None:
    off = {
        str(settings): worst
        for settings in settings_of(name)
        if not is_refused(name, settings) and not (worst := compare(name, settings, STEPS)) < 1e-3
    }
    assert off == {}


@pytest.mark.parametrize("steps", TERSE)
@pytest.mark.parametrize("name", [*ON_BETAS, *OTHERS])
def test_one_and_two_steps_are_sampled_as_diffusers_samples_them(name: str, steps: int) -> None:
    assert compare(name, {}, steps) < 1e-3


def refusal(name: str, steps: int, settings: dict[str, Any]) -> str:
    with pytest.raises(SchedulerError) as caught:
        sampler_table(made(name, **settings), steps)
    message = str(caught.value)
    assert message.startswith(f"{name}Scheduler")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("steps", [1, 2, STEPS])
@pytest.mark.parametrize("name", DIVIDING)
def test_zero_snr_is_refused_where_it_divides_by_zero(name: str, steps: int) -> None:
    message = refusal(name, steps, ZERO_SNR)
    assert "with rescale_betas_zero_snr true" in message
    assert "numbers that are not finite" in message
    assert "set rescale_betas_zero_snr to false" in message
    assert 'prediction_type to "v_prediction"' in message


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "DDIM, thresholding": ("DDIM", {"thresholding": True}, "set thresholding to false"),
    "DPM, thresholding": (
        "DPMSolverMultistep",
        {"thresholding": True},
        "set thresholding to false",
    ),
    "DDIM, clip_sample": ("DDIM", {"clip_sample": True}, "set clip_sample to false"),
    "Heun, clip_sample": ("HeunDiscrete", {"clip_sample": True}, "set clip_sample to false"),
    "consistency": ("CMStochasticIterative", {}, "set clip_denoised to false"),
    "DDPM, learned": ("DDPM", {"variance_type": "learned"}, 'set variance_type to "fixed_small"'),
    "DDPM, log": (
        "DDPM",
        {"variance_type": "fixed_large_log"},
        'set variance_type to "fixed_small"',
    ),
    "DPM, learned": (
        "DPMSolverMultistep",
        {"variance_type": "learned_range"},
        "set variance_type to null",
    ),
    "UniPC, order": (
        "UniPCMultistep",
        {"lower_order_final": False},
        "set lower_order_final to true",
    ),
    "UniPC, noise": ("UniPCMultistep", {"predict_x0": False}, "set predict_x0 to true"),
    "UniPC, bh1": ("UniPCMultistep", {"solver_type": "bh1"}, 'set solver_type to "bh2"'),
    "shifting": (
        "FlowMatchEulerDiscrete",
        {"use_dynamic_shifting": True},
        "set use_dynamic_shifting to false",
    ),
    "KDPM2, cosine": (
        "KDPM2AncestralDiscrete",
        {"beta_schedule": COSINE, "num_train_timesteps": 1000},
        "such as DPMSolverMultistepScheduler",
    ),
    "PNDM, samples": ("PNDM", {"prediction_type": "sample"}, "DPMSolverMultistepScheduler"),
    "inverse": ("DDIMInverse", {}, "turns images into noise; choose another scheduler"),
    "video": ("CogVideoXDPM", {}, "such as DPMSolverMultistepScheduler"),
    "inpainting": ("RePaint", {}, "such as DPMSolverMultistepScheduler"),
    "no steps": ("ScoreSdeVe", {}, "such as FlowMatchEulerDiscreteScheduler"),
    "no timesteps": ("HeliosDMD", {}, "such as FlowMatchEulerDiscreteScheduler"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_sampled_is_refused_with_a_way_out(case: str) -> None:
    name, settings, way_out = REFUSED[case]
    message = refusal(name, STEPS, settings)
    assert way_out in message
    of_the_denoiser = ("beta_schedule", "num_train_timesteps")
    assert all(key in message for key in settings if key not in of_the_denoiser)


@pytest.mark.parametrize(
    ("name", "settings", "way_out"),
    [
        ("PNDM", {"skip_prk_steps": False}, "set skip_prk_steps to true"),
        ("FlowMatchEulerDiscrete", {"shift_terminal": 0.1}, "set shift_terminal to null"),
        ("UnCLIP", {}, "it works with 2 steps"),
    ],
)
def test_what_one_step_is_too_few_for_is_refused(
    name: str, settings: dict[str, Any], way_out: str
) -> None:
    message = refusal(
        name, 1, {**settings, **({"beta_schedule": COSINE} if name == "UnCLIP" else {})}
    )
    assert way_out in message


def test_the_change_a_refusal_names_helps() -> None:
    for name, settings, way_out in REFUSED.values():
        if way_out.startswith("set "):
            key = next(iter(settings), "clip_denoised")
            value = {"false": False, "true": True, "null": None}.get(
                way_out.split()[-1], way_out.split()[-1].strip('"')
            )
            assert np.isfinite(sampler_table(made(name, **{key: value}), STEPS).samples).all()


def test_a_refusal_says_which_file_it_is_about(tmp_path: Any) -> None:
    made("DDIM", **ZERO_SNR).save_pretrained(tmp_path)
    where = r"scheduler_config\.json: DDIMScheduler with rescale_betas_zero_snr true"
    with pytest.raises(SchedulerError, match=where):
        scheduler_table(tmp_path, Family.SD, STEPS, (8, 8), 1)


def test_tcd_draws_no_noise_as_pipelines_run_it() -> None:
    """diffusers' pipelines give `step` an eta of 0, where TCD's own default is 0.3."""
    assert sampler_table(made("TCD"), STEPS).draws == 0


@pytest.mark.parametrize("patch", [1, 2])
def test_a_schedule_shifts_by_the_number_of_tokens(tmp_path: Any, patch: int) -> None:
    """As diffusers' pipeline of Stable Diffusion 3 works it out: mu is linear in the tokens."""
    made("FlowMatchEulerDiscrete", use_dynamic_shifting=True).save_pretrained(tmp_path)
    table = scheduler_table(tmp_path, Family.SD3, STEPS, (24, 16), patch)
    tokens = (24 // patch) * (16 // patch)
    mu = 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)
    wanted = made("FlowMatchEulerDiscrete", use_dynamic_shifting=True)
    wanted.set_timesteps(STEPS, mu=mu)
    assert np.allclose(table.timesteps, wanted.timesteps.numpy(), rtol=1e-6)
