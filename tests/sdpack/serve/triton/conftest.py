from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from sdpack.cli.main import main

from tests.sdpack.bundles import write_drawing_bundle


@pytest.fixture(scope="package")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "bundle"
    write_drawing_bundle(folder, name="bundle")
    return folder


@pytest.fixture(scope="package")
def repository(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "models"
    result = CliRunner().invoke(main, ["export", "triton", str(bundle), str(folder)])
    assert result.exit_code == 0, result.output
    assert "send requests to bundle" in result.output
    return folder
