"""Alternatives to a scheduler that cannot be written as a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sdpack.errors import SdpackError

# Settings that make a scheduler nonlinear.
NONLINEAR = ("thresholding", "clip_sample", "clip_denoised")
FIRST: Mapping[str, Any] = {
    **dict.fromkeys(NONLINEAR, False),
    "rescale_betas_zero_snr": False,
    "skip_prk_steps": True,
}
LAST: Mapping[str, Any] = {"final_sigmas_type": "sigma_min"}
# Settings that the denoiser was trained with; changing them would change the images.
OF_THE_DENOISER = frozenset(
    {
        "beta_end",
        "beta_schedule",
        "beta_start",
        "num_train_timesteps",
        "prediction_type",
        "trained_betas",
    }
)
MORE: Mapping[str, str] = {
    "rescale_betas_zero_snr": (
        ', or prediction_type to "v_prediction" if the denoiser was trained with it: a schedule '
        "that ends in pure noise needs that"
    ),
    "thresholding": ", which is for pixels, not for latents",
}
OTHER_SCHEDULERS = ("DPMSolverMultistepScheduler", "EulerDiscreteScheduler")
FLOW_OTHERS = ("FlowMatchEulerDiscreteScheduler",)
MORE_STEPS = 4  # maximum number of additional steps to try


class UnusableError(SdpackError):
    """A scheduler cannot be written as a table; the message follows its name."""


@dataclass(frozen=True)
class Instead:
    """An alternative that works.

    Attributes:
        advice: the remedy, in words.
        setting: the setting of the scheduler's config at fault, with its value; "" if it is not a
            single one.
    """

    advice: str
    setting: str = ""


def way_out(
    scheduler: Any,
    defaults: Mapping[str, Any],
    steps: int,
    works: Callable[..., bool],
) -> Instead:
    """Return the first change that works: of one setting, of the steps, or of the scheduler.

    Args:
        scheduler: a diffusers scheduler that cannot be used as it is.
        defaults: settings of its class, with their defaults.
        steps: the requested number of steps.
        works: tells whether a scheduler works; takes the scheduler and, optionally, another number
            of steps.
    """
    for key, value in _changes(scheduler.config, defaults):
        other = _changed(type(scheduler), scheduler.config, {key: value})
        if other is not None and works(other):
            advice = f"set {key} to {json.dumps(value)} in its config{MORE.get(key, '')}"
            return Instead(advice, f"{key} {_json(scheduler.config[key])}")
    for count in range(steps + 1, steps + 1 + MORE_STEPS):
        if works(scheduler, count):
            return Instead(f"it works with {count} steps")
    for kind in _others(defaults):
        other = _changed(kind, scheduler.config, dict.fromkeys(NONLINEAR, False))
        if other is not None and works(other):
            return Instead(f"choose another scheduler, such as {kind.__name__}")
    return Instead("choose another scheduler")


def _json(value: Any) -> str:
    return json.dumps(value, default=str)


def _changes(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield changes of single settings: the usual culprits, then each back to its default."""
    usual = {
        key: value
        for key, value in defaults.items()
        if key not in FIRST and key not in OF_THE_DENOISER
    }
    for changes in (FIRST, usual, LAST):
        for key, value in changes.items():
            if key in defaults and key in config and config[key] != value:
                yield key, value


def _changed(kind: Any, config: Mapping[str, Any], changes: Mapping[str, Any]) -> Any:
    """Return a scheduler with some settings changed; None if its class rejects them."""
    try:
        return kind.from_config(config, **changes)
    except (ValueError, TypeError, RuntimeError, ImportError):
        return None


def _others(defaults: Mapping[str, Any]) -> list[Any]:
    import diffusers

    names = OTHER_SCHEDULERS if "beta_schedule" in defaults else FLOW_OTHERS
    return [getattr(diffusers, name) for name in names]
