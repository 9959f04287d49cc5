from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from sdpack.cli import run as module
from sdpack.cli.main import main
from sdpack.documents.conditioning import Conditioning
from sdpack.runtime import bundle
from sdpack.runtime.pictures import read_texts
from sdpack.runtime.pipeline import Request

from tests.sdpack.documents.test_bundle import manifest
from tests.sdpack.runtime.webui_reader import read_infotext


class FakePipeline:
    """Draws squares whose grey is the seed."""

    def __init__(self) -> None:
        self.tokenizers: dict[str, object] = {}
        self.conditioning = Conditioning()

    def draw(self, request: Request) -> np.ndarray:
        shape = (1, request.height, request.width, 3)
        return np.full(shape, request.seeds[0], np.uint8)

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _fake_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "open_bundle", lambda _: manifest(name="mine"))
    monkeypatch.setattr(bundle, "pipeline", lambda *_, **__: FakePipeline())
    monkeypatch.chdir(tmp_path)


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["run", "B", "--runtime", "onnxruntime-cpu", *words])


def files() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def greys(names: Sequence[str]) -> list[int]:
    return [int(np.asarray(Image.open(name).convert("L"))[0, 0]) for name in names]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "PNG"),
        ("A.PNG", "PNG"),
        ("a.jpg", "JPEG"),
        ("a.JPEG", "JPEG"),
        ("a.webp", "WEBP"),
        ("a.b.Jpg", "JPEG"),
    ],
)
def test_the_suffix_says_the_format(name: str, kind: str) -> None:
    result = run("a cat", "--seed", "9", "--out", name, "--negative-prompt", "a, dog")
    assert result.exit_code == 0, result.output
    assert files() == [name]
    file = Path(name).read_bytes()
    assert Image.open(io.BytesIO(file)).format == kind
    texts = read_texts(file)
    prompt, negative, settings = read_infotext(texts["parameters"])
    assert (prompt, negative) == ("a cat", "a, dog")
    assert (settings["Seed"], settings["Model"], settings["Size"]) == ("9", "mine", "64x64")
    assert json.loads(texts["sdpack"])["seed"] == 9


def test_another_suffix_is_refused_with_those_there_are() -> None:
    result = run("a cat", "--out", "a.bmp")
    assert result.exit_code == 2
    assert "a.bmp" in result.output
    assert ".png, .jpg, .jpeg, .webp" in result.output
    assert files() == []


def test_a_folder_may_have_a_dot() -> None:
    Path("v1.5").mkdir()
    Path("x.png").mkdir()
    for folder in ("v1.5", "x.png"):
        assert run("a cat", "--out", folder).exit_code == 0
        assert [path.name for path in Path(folder).iterdir()] == ["1.png"]


@pytest.mark.parametrize(
    ("out", "names"),
    [
        ("drawn", ["drawn/1.png", "drawn/2.png", "drawn/3.png", "drawn/4.png"]),
        (".", ["1.png", "2.png", "3.png", "4.png"]),
        ("a.JPG", ["a-1.JPG", "a-2.JPG", "a-3.JPG", "a-4.JPG"]),
        ("in/a.webp", ["in/a-1.webp", "in/a-2.webp", "in/a-3.webp", "in/a-4.webp"]),
    ],
)
def test_several_pictures_are_numbered_and_earlier_ones_kept(out: str, names: list[str]) -> None:
    first = run("a cat", "a dog", "--seed", "50", "--out", out, "--json")
    assert [one["file"] for one in json.loads(first.stdout)["pictures"]] == names[:2]
    assert run("a cat", "a dog", "--seed", "90", "--out", out).exit_code == 0
    for grey, wanted in zip(greys(names), (50, 51, 90, 91), strict=True):
        assert abs(grey - wanted) <= 1
    assert "replaced" not in first.output


def test_numbers_go_on_after_the_highest() -> None:
    for name in ("7.png", "x8.png", "9.jpg", "8x.png", "010.PNG"):
        Path(name).write_bytes(b"mine")
    assert "11.png" in run("a cat").output
    assert Path("7.png").read_bytes() == b"mine"


def test_a_named_file_is_replaced_and_that_is_told() -> None:
    run("a cat", "--out", "a.png", "--seed", "1")
    result = run("a cat", "--out", "a.png", "--seed", "2")
    assert "a.png exists and is replaced" in result.stderr
    assert greys(["a.png"]) == [2]


@pytest.mark.parametrize("out", ["file/a.png", "file/drawn", "x" * 300 + ".png"])
def test_where_nothing_can_be_written_is_told_in_a_line(out: str) -> None:
    Path("file").write_text("not a folder")
    result = run("a cat", "--out", out)
    assert result.exit_code == 1
    assert "cannot be written" in result.output
    assert "Traceback" not in result.output
    assert files() == ["file"]
