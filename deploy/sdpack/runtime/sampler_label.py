"""What the web UI of AUTOMATIC1111 calls the sampler of a bundle."""

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
"""Of `DPMSolverMultistepScheduler`, by its algorithm; both are of the second order."""
SCHEDULES = {
    "use_karras_sigmas": "Karras",
    "use_exponential_sigmas": "Exponential",
    "use_beta_sigmas": "Beta",
}


@dataclass(frozen=True)
class SamplerLabel:
    """A sampler as front ends of the web UI know it.

    Attributes:
        name: the web UI's, such as "DPM++ 2M"; of a sampler it does not have, the scheduler's.
        schedule: how its noise levels are spaced: "Karras" or the like, else "Automatic".
        scheduler: the diffusers class.
    """

    name: str
    schedule: str = AUTOMATIC
    scheduler: str = ""


def sampler_label(folder: Path) -> SamplerLabel:
    """What the web UI calls the sampler of an opened bundle.

    Bundles carry the configuration of the diffusers scheduler their table was made from, for
    optimum's pipelines. One without a readable configuration is labelled "unknown": a name is not
    worth failing for.
    """
    try:
        config = json.loads((folder / SCHEDULER_CONFIG_PATH).read_text(encoding="utf-8"))
        return label_of(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return SamplerLabel("unknown")


def label_of(config: Mapping[str, Any]) -> SamplerLabel:
    """What the web UI calls the scheduler of a scheduler_config.json.

    Raises:
        KeyError: it does not name its class.
    """
    scheduler = str(config["_class_name"])
    name = SAMPLERS.get(scheduler, scheduler)
    if scheduler == "DPMSolverMultistepScheduler" and config.get("solver_order", 2) == 2:
        name = DPM_SOLVERS.get(config.get("algorithm_type", "dpmsolver++"), scheduler)
    spacings = [words for key, words in SCHEDULES.items() if config.get(key)]
    return SamplerLabel(name, spacings[0] if spacings else AUTOMATIC, scheduler)
