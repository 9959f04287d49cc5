"""What the Python API draws, and what it refuses to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sdpack
from click.testing import CliRunner
from PIL import Image
from sdpack.api import drawing
from sdpack.cli.main import main
from sdpack.runtime.bundle import pipeline

from tests.sdpack.api.refusals import check_refused
from tests.sdpack.bundles import SIDE, STEPS, write_drawing_bundle
from tests.sdpack.interpreter import python

REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "no bundle": (lambda: sdpack.open_bundle("nowhere"), sdpack.BundleError, "nowhere is no"),
    "no path": (lambda: sdpack.open_bundle(""), sdpack.InputError, "path is ''; give a text or"),
    "no runtime": (
        lambda: sdpack.open_bundle("nowhere", "cpu"),
        sdpack.InputError,
        "runtime is 'cpu'; choose one of tensorrt-rtx, tensorrt, onnxruntime-cuda, onnxruntime-cpu",
    ),
    "no threads": (
        lambda: sdpack.open_bundle("nowhere", threads=0),
        sdpack.InputError,
        "threads is 0; give a whole number, 1 or more",
    ),
}


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api") / "bundle"
    write_drawing_bundle(folder)
    return folder


def opened(folder: Path) -> sdpack.Bundle:
    return sdpack.open_bundle(folder, runtime="onnxruntime-cpu")


def pixels(pictures: list[Image.Image]) -> list[bytes]:
    return [picture.tobytes() for picture in pictures]


def test_it_draws_without_what_exports(folder: Path) -> None:
    code = """
import sys
class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "diffusers", "transformers", "click"):
            raise ImportError(f"{name} is forbidden")
sys.meta_path.insert(0, Forbidden())
import sdpack
with sdpack.open_bundle(sys.argv[1], runtime="onnxruntime-cpu") as bundle:
    (picture,) = bundle.draw("noto, pizza", seed=7)
print(picture.tobytes().hex())
"""
    with opened(folder) as bundle:
        assert [bytes.fromhex(python(code, str(folder)))] == pixels(
            bundle.draw("noto, pizza", seed=7)
        )


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ((), {}),
        (("--seed", "7"), {"seed": 7}),
        (("--guidance-scale", "1", "--steps", str(STEPS)), {"guidance_scale": 1, "steps": STEPS}),
        (("--negative-prompt", "a, dog"), {"negative_prompt": "a, dog"}),
        (("--size", str(SIDE)), {"size": (SIDE, SIDE)}),
    ],
)
def test_it_draws_what_the_command_line_draws(
    options: tuple[str, ...], arguments: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    prompts = ["noto, pizza", "twemoji, cat face"]
    words = ["run", str(folder), *prompts, "--runtime", "onnxruntime-cpu", "-o", str(tmp_path)]
    ran = CliRunner().invoke(main, [*words, *options])
    assert ran.exit_code == 0, ran.output
    with opened(folder) as bundle:
        drawn = bundle.draw(prompts, **arguments)
    assert [picture.size for picture in drawn] == [(SIDE, SIDE)] * 2
    files = [Image.open(tmp_path / f"{number}.png") for number in (1, 2)]
    assert pixels(drawn) == pixels([file.convert("RGB") for file in files])


def test_seeds_count_up_over_prompts_and_pictures(folder: Path) -> None:
    with opened(folder) as bundle:
        drawn = bundle.draw(["a cat", "a dog"], seed=3, count=2)
        alone = [bundle.draw(p, seed=s) for p, s in (("a cat", 3), ("a cat", 4), ("a dog", 5))]
        assert pixels(drawn[:3]) == [pixels(one)[0] for one in alone]
        assert len(set(pixels(drawn))) == 4
        numpys: Any = np.int64(3)
        assert pixels(bundle.draw("a cat", seed=numpys)) == pixels(drawn[:1])
        assert pixels(bundle.draw("a cat")) == pixels(bundle.draw("a cat", seed=0))


def test_engines_are_loaded_by_the_first_draw_and_freed_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    def counted(*given: Any, **named: Any) -> Any:
        made.append((given[2:], named))
        return pipeline(*given, **named)

    monkeypatch.setattr(drawing, "pipeline", counted)
    monkeypatch.chdir(folder.parent)
    bundle = sdpack.open_bundle("bundle", "onnxruntime-cpu", threads=1, low_memory=True)
    monkeypatch.chdir("/")
    assert (bundle.manifest.name, made) == ("test", [])
    for _ in range(2):
        bundle.draw("a cat")
    assert made == [(("onnxruntime-cpu", 1), {"low_memory": True})]
    bundle.close()
    bundle.close()
    with pytest.raises(sdpack.EngineError, match="bundle test was closed; open it again"):
        bundle.draw("a cat")


def test_threads_take_turns(folder: Path) -> None:
    drawn: dict[int, list[bytes]] = {}
    with opened(folder) as bundle:

        def draw(seed: int) -> None:
            drawn[seed] = pixels(bundle.draw("a cat", seed=seed))

        threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert drawn == {seed: pixels(bundle.draw("a cat", seed=seed)) for seed in range(4)}


def test_a_prompt_that_is_not_read_to_its_end_is_told_of(folder: Path) -> None:
    with opened(folder) as bundle:
        with pytest.warns(UserWarning, match="truncated: text_encoder reads 16 tokens") as told:
            bundle.draw("a cat " * 20, count=2)
        assert [warning.filename for warning in told] == [__file__]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompt": 5}, "prompt is 5; give a text, or a list of texts"),
        ({"prompt": ["a cat", None]}, "give a text, or a list of texts"),
        ({"prompt": []}, "prompt is an empty list"),
        ({"negative_prompt": 5}, "negative_prompt is 5; give a text"),
        ({"seed": -1}, "seed is -1; give a whole number, 0 or more"),
        ({"seed": 2**63}, f"use 0 to {2**63 - 1}"),
        ({"seed": 1.5}, "seed is 1.5; give a whole number"),
        ({"seed": True}, "seed is True; give a whole number"),
        ({"steps": 0}, "steps is 0; give a whole number, 1 or more"),
        ({"steps": 999}, "test has no sampler table for 999 steps"),
        ({"size": 512}, r"size is 512; give width and height in pixels"),
        ({"size": "64"}, r"size is '64'; give width and height in pixels"),
        ({"size": (64, 0)}, r"size, \(64, 0\), is 0; give a whole number, 1 or more"),
        ({"size": (96, 64)}, "built for images of 32x32 pixels, not 96x64"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan; give a finite number"),
        ({"guidance_scale": -1}, "guidance_scale is -1; give a finite number, 0 or more"),
        ({"guidance_scale": "3"}, "guidance_scale is '3'; give a finite number"),
        ({"count": 0}, "count is 0; give a whole number, 1 or more"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_refused(
    arguments: dict[str, Any], said: str, folder: Path
) -> None:
    with opened(folder) as bundle, pytest.raises(sdpack.PromptError, match=said):
        bundle.draw(**{"prompt": "a cat", **arguments})


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_in_a_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_refused(*REFUSED[name])
    assert not [*tmp_path.iterdir()]
