from __future__ import annotations

from typing import Any

import diffusers
import pytest
from sdpack.export.instead import Instead, way_out

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SETTINGS = ("thresholding", "clip_sample", "rescale_betas_zero_snr", "timestep_spacing")


def ddim(**settings: Any) -> tuple[Any, dict[str, Any]]:
    """A scheduler, and what its class takes where a config says nothing."""
    values = {**BETAS, "clip_sample": False, **settings}
    made = diffusers.DDIMScheduler(**values)
    return made, dict(diffusers.DDIMScheduler().config)


@pytest.mark.parametrize(
    ("settings", "setting", "advice"),
    [
        ({"thresholding": True}, "thresholding true", "set thresholding to false in its config"),
        ({"clip_sample": True}, "clip_sample true", "set clip_sample to false in its config"),
        (
            {"timestep_spacing": "trailing"},
            'timestep_spacing "trailing"',
            'set timestep_spacing to "leading" in its config',
        ),
    ],
)
def test_the_one_setting_that_has_to_change_is_named(
    settings: dict[str, Any], setting: str, advice: str
) -> None:
    scheduler, defaults = ddim(**settings)
    (key, bad), *_ = settings.items()
    found = way_out(scheduler, defaults, 4, lambda other, steps=4: other.config[key] != bad)
    assert found.setting == setting
    assert found.advice.startswith(advice)


def test_settings_the_denoiser_was_trained_with_are_never_changed() -> None:
    scheduler, defaults = ddim()
    tried: list[dict[str, Any]] = []

    def works(other: Any, steps: int = 4) -> bool:
        tried.append(dict(other.config))
        return False

    assert way_out(scheduler, defaults, 4, works) == Instead("choose another scheduler")
    assert {values["beta_schedule"] for values in tried} == {"scaled_linear"}
    assert {values["prediction_type"] for values in tried} == {"epsilon"}


def test_more_steps_are_tried_before_another_scheduler() -> None:
    scheduler, defaults = ddim()
    found = way_out(scheduler, defaults, 1, lambda other, steps=1: steps == 3)
    assert found == Instead("it works with 3 steps")


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (diffusers.DDIMScheduler, "DPMSolverMultistepScheduler"),
        (diffusers.FlowMatchHeunDiscreteScheduler, "FlowMatchEulerDiscreteScheduler"),
    ],
)
def test_the_suggested_scheduler_has_the_same_kind_of_schedule(make: Any, other: str) -> None:
    scheduler = make()

    def works(tried: Any, steps: int = 4) -> bool:
        return not isinstance(tried, make)

    found = way_out(scheduler, dict(scheduler.config), 4, works)
    assert found == Instead(f"choose another scheduler, such as {other}")
