from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sdpack.documents.bundle import open_bundle

from tests.sdpack.bundles import write_drawing_bundle
from tests.sdpack.cli.calling import run


def verified(folder: Path, predicted: int) -> Any:
    """A run of the command on a bundle of so large a predicted peak, and its exit code."""
    write_drawing_bundle(folder)
    memory = open_bundle(folder).memory.model_dump()
    again = {**memory, "predicted_bytes": predicted, "budget_bytes": 2**32}
    write_drawing_bundle(folder, memory=again)
    return run("verify", str(folder), "--json")


@pytest.mark.parametrize(("predicted", "within"), [(2**31, True), (2**20, False)])
def test_the_exit_code_says_whether_the_peak_is_as_predicted(
    tmp_path: Path, predicted: int, within: bool
) -> None:
    result = verified(tmp_path / "b", predicted)
    found = json.loads(result.stdout)
    assert found["within"] is within
    assert (found["measured_bytes"] <= 1.05 * predicted) is within
    assert result.exit_code == (0 if within else 1)
    kept = json.loads((tmp_path / "b" / "verified.json").read_text())
    assert kept == {key: value for key, value in found.items() if key != "within"}
