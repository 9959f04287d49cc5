from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import tiny
from tests.e2e.test_build import build


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of tiny parts in fp32, for a CPU, up to four pictures at once."""
    work = tmp_path_factory.mktemp("serve")
    tiny.write_catalog(work / "catalog")
    build(work, "cpu-2gb", ["fp32"], "bundle", "--batch", "4", "--images", "2")
    return work / "bundle"
