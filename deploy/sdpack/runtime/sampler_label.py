"""AUTOMATIC1111's names for the samplers of bundles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

AUTOMATIC = "Automatic"  # the web UI's word for a sampler's own schedule
SCHEDULER_CONFIG_PATH = Path("onnx", "scheduler", "scheduler_config.json")
SAMPLERS = {
    "DDIMScheduler": "DDIM",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "EulerDiscreteScheduler": "Euler",
    "FlowMatchEulerDiscreteScheduler": "Euler",
    "HeunDiscreteScheduler": "Heun",
    "KDPM2AncestralDiscreteScheduler": "DPM2 a",
    "KDPM2DiscreteScheduler": "DPM2",
    "LCMScheduler": "LCM",
    "PNDMScheduler": "PLMS",
    "UniPCMultistepScheduler": "UniPC",
}
DPM_SOLVERS = {"dpmsolver++": "DPM++ 2M", "sde-dpmsolver++": "DPM++ 2M SDE"}
"""Names of second-order `DPMSolverMultistepScheduler`s, by algorithm."""
SCHEDULES = {
    "use_karras_sigmas": "Karras",
    "use_exponential_sigmas": "Exponential",
    "use_beta_sigmas": "Beta",
}


@dataclass(frozen=True)
class SamplerLabel:
    """The names of a sampler.

    Attributes:
        name: the web UI's name, such as "DPM++ 2M", or the diffusers class if it has none.
        schedule: the web UI's name of the noise schedule, such as "Karras" or "Automatic".
        scheduler: the diffusers class.
    """

    name: str
    schedule: str = AUTOMATIC
    scheduler: str = ""


def sampler_label(folder: Path) -> SamplerLabel:
    """Return the names of a bundle's sampler.

    They are derived from the scheduler config that bundles contain for optimum's pipelines. Without
    a readable config the name is "unknown", because a label is not worth an error.
    """
    try:
        config = json.loads((folder / SCHEDULER_CONFIG_PATH).read_text(encoding="utf-8"))
        return label_of(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return SamplerLabel("unknown")


def label_of(config: Mapping[str, Any]) -> SamplerLabel:
    """Return the names of the sampler in a scheduler_config.json.

    Raises:
        KeyError: the config does not name its class.
    """
    scheduler = str(config["_class_name"])
    name = SAMPLERS.get(scheduler, scheduler)
    if scheduler == "DPMSolverMultistepScheduler" and config.get("solver_order", 2) == 2:
        name = DPM_SOLVERS.get(config.get("algorithm_type", "dpmsolver++"), scheduler)
    spacings = [words for key, words in SCHEDULES.items() if config.get(key)]
    return SamplerLabel(name, spacings[0] if spacings else AUTOMATIC, scheduler)
