from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
from sdpack.runtime.sampler_label import (
    SAMPLERS,
    SCHEDULER_CONFIG_PATH,
    SamplerLabel,
    label_of,
    sampler_label,
)

DPM = "DPMSolverMultistepScheduler"


@pytest.mark.parametrize(
    ("config", "label"),
    [
        ({"_class_name": "EulerAncestralDiscreteScheduler"}, ("Euler a", "Automatic")),
        ({"_class_name": DPM}, ("DPM++ 2M", "Automatic")),
        ({"_class_name": DPM, "use_karras_sigmas": True}, ("DPM++ 2M", "Karras")),
        ({"_class_name": DPM, "algorithm_type": "sde-dpmsolver++"}, ("DPM++ 2M SDE", "Automatic")),
        ({"_class_name": DPM, "algorithm_type": "dpmsolver"}, (DPM, "Automatic")),
        ({"_class_name": DPM, "solver_order": 3}, (DPM, "Automatic")),
        ({"_class_name": "DEISMultistepScheduler"}, ("DEISMultistepScheduler", "Automatic")),
        ({"_class_name": "EulerDiscreteScheduler", "use_beta_sigmas": True}, ("Euler", "Beta")),
    ],
)
def test_a_scheduler_has_the_web_uis_name(config: dict[str, Any], label: tuple[str, str]) -> None:
    found = label_of(config)
    assert (found.name, found.schedule) == label
    assert found.scheduler == config["_class_name"]


def test_all_schedulers_named_are_diffusers_own() -> None:
    assert all(hasattr(diffusers, name) for name in (*SAMPLERS, DPM))


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", "\xff"])
def test_a_bundle_without_its_configuration_has_a_label_too(
    tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / SCHEDULER_CONFIG_PATH
    path.parent.mkdir(parents=True)
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    assert sampler_label(tmp_path) == SamplerLabel("unknown")


def test_a_bundles_configuration_is_read(tmp_path: Path) -> None:
    path = tmp_path / SCHEDULER_CONFIG_PATH
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"_class_name": "DDIMScheduler"}))
    assert sampler_label(tmp_path) == SamplerLabel("DDIM", scheduler="DDIMScheduler")
