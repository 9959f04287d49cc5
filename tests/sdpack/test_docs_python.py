"""What docs/python.md shows is run as it stands, with a tiny bundle, catalog and graph."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from sdpack.documents.profile import profiles_folder

from tests.e2e import tiny
from tests.sdpack.bundles import write_drawing_bundle
from tests.sdpack.graphs import linear, saved

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module", name="work")
def _work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the page's examples name."""
    work = tmp_path_factory.mktemp("docs")
    rng = np.random.default_rng(0)
    write_drawing_bundle(work / "engines" / "4gb-gpu")
    tiny.write_catalog(work / "mine")
    values = yaml.safe_load((profiles_folder() / "cpu-2gb.yaml").read_text())
    (work / "mine.yaml").write_text(yaml.safe_dump({**values, "precisions": ["fp32"]}))
    graph = saved(linear(rng.standard_normal((64, 96)).astype(np.float32)), work / "graph")
    for file in graph.parent.glob(f"{graph.name}*"):
        file.rename(work / file.name)
    (work / graph.name).rename(work / "unet.onnx")
    (work / "batches").mkdir()
    batch = rng.standard_normal((64, 64)).astype(np.float32)
    np.savez(work / "batches" / "0.npz", x=batch)
    return work


def is_build(example: str) -> bool:
    return "build(" in example or "study(" in example


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=[pytest.mark.slow] if is_build(example) else [])
        for number, example in enumerate(BLOCKS)
    ],
)
def test_an_example_runs(number: int, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setenv("SDPACK_CACHE", str(work / "cache"))
    exec(compile(BLOCKS[number], f"docs/python.md, example {number + 1}", "exec"), {})


def test_the_readme_links_the_page() -> None:
    assert "(docs/python.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
