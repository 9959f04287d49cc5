from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import EulerDiscreteScheduler

from tests.e2e import families


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's model, written once."""
    made: dict[str, Path] = {}

    def model(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp("models") / "m"
            made[family] = families.write_model(folder, family, EulerDiscreteScheduler())
        return made[family]

    return model


def changed(folder: Path, part: str, **values: Any) -> None:
    """Write other values into a component's config, or the pipeline's own."""
    path = folder / part
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
