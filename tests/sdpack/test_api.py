"""The Python API: its names and signatures, what it imports, what it draws and what it refuses."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sdpack
from click.testing import CliRunner
from PIL import Image
from sdpack import errors
from sdpack.api import drawing
from sdpack.cli.main import main

from tests.sdpack.bundles import SIDE, STEPS, write_drawing_bundle
from tests.sdpack.graphs import linear, saved

ROOT = Path(__file__).parents[2]
ERRORS = {
    "BrokenPictureError",
    "BundleError",
    "CatalogError",
    "EngineError",
    "ExportError",
    "GraphError",
    "InfeasibleError",
    "InputError",
    "MissingPackageError",
    "ProfileError",
    "PromptError",
    "QuantizationError",
    "SchedulerError",
    "SdpackError",
    "SourceError",
    "StoreError",
    "UnsupportedGraphError",
}
OTHERS = {"Bundle", "Catalog", "Profile", "__version__"}
PARTS = (
    "catalog: PathLikeText | None = None, model: PathLikeText | None = None, "
    "sizes: Sequence[tuple[int, int]] = (), batch: int | None = None, steps: int | None = None, "
)
SIGNATURES = {
    "open_bundle": "(path: PathLikeText, runtime: str | None = None, threads: int | None = None, "
    "low_memory: bool | None = None) -> Bundle",
    "build": "(*, profile: PathLikeText, memory: str | int | None = None, "
    f"out: PathLikeText | None = None, {PARTS}images: int = 384, prefer: str = 'quality', "
    "progress: Say | None = None) -> BuildResult",
    "study": "(*, budgets: str | Sequence[str | int], profile: PathLikeText = '4gb-gpu', "
    f"out: PathLikeText = 'study', {PARTS}images: int = 64, prefer: str = 'quality', "
    "progress: Say | None = None) -> Studied",
    "quantize": "(*, model: PathLikeText, precision: str, "
    "calibration: PathLikeText | Sequence[PathLikeText] = (), runtime: str = 'onnxruntime-cpu', "
    "keep: str | Sequence[str] = (), out: PathLikeText | None = None, "
    "progress: Say | None = None) -> QuantizeResult",
    "Bundle.draw": "(self, prompt: str | Sequence[str], *, negative_prompt: str | None = None, "
    "seed: int | None = None, steps: int | None = None, size: tuple[int, int] | None = None, "
    "guidance_scale: float | None = None, count: int = 1) -> list[Image.Image]",
    "Bundle.close": "(self) -> None",
    "Profile.load": "(name_or_path: str | PathLike[str]) -> Profile",
    "Catalog.load": "(name_or_path: str | PathLike[str]) -> Catalog",
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


def python(code: str, *words: str) -> str:
    """What a fresh interpreter prints."""
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_names_are_these() -> None:
    functions = {name for name in SIGNATURES if "." not in name}
    assert set(sdpack.__all__) == ERRORS | OTHERS | functions
    assert dir(sdpack) == sorted(sdpack.__all__) == sdpack.__all__
    assert all(hasattr(sdpack, name) for name in sdpack.__all__)


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'sdpack' has no attribute 'open'"):
        _ = sdpack.open  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_is_this(name: str) -> None:
    found: Any = sdpack
    for step in name.split("."):
        found = getattr(found, step)
    assert written(found) == SIGNATURES[name]


def written(function: Callable[..., Any]) -> str:
    """A signature as source code has it: annotations, which are texts here, without quotes."""
    signature = inspect.signature(function)
    text = str(signature)
    for parameter in signature.parameters.values():
        text = text.replace(repr(parameter.annotation), str(parameter.annotation))
    return text.replace(repr(signature.return_annotation), str(signature.return_annotation))


def test_every_public_error_is_one_of_the_tree() -> None:
    public = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.SdpackError)
    }
    assert public == ERRORS
    assert all(issubclass(getattr(sdpack, name), sdpack.SdpackError) for name in ERRORS)


def test_type_checkers_see_what_there_is() -> None:
    tree = ast.parse(Path(sdpack.__file__).read_text())
    (block,) = [n for n in tree.body if isinstance(n, ast.If) and isinstance(n.test, ast.Name)]
    seen = {
        alias.asname or alias.name: statement.module
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert set(seen) == set(sdpack.__all__)
    homes = {name: sdpack._HOMES.get(name, "sdpack.errors") for name in sdpack.__all__}
    assert seen == homes
    assert (Path(sdpack.__file__).parent / "py.typed").is_file()


def test_importing_it_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import sdpack\n"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(loaded - set(sys.stdlib_module_names)))"
    )
    assert python(code).strip() == "['sdpack']"


def test_what_it_turns_off_is_telemetry_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("HF_HUB_DISABLE_TELEMETRY", "ORT_DISABLE_TELEMETRY")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    code = (
        "import os; before = dict(os.environ)\n"
        "import sdpack; print(sorted(set(os.environ.items()) ^ set(before.items())))"
    )
    assert python(code).strip() == str([(name, "1") for name in names])


def test_all_its_names_are_had_without_torch_and_onnxruntime() -> None:
    code = (
        "import sys; from sdpack import *\n"
        "print([n for n in ('torch', 'diffusers', 'transformers', 'onnxruntime', 'click')"
        " if n in sys.modules])"
    )
    assert python(code).strip() == "[]"


def test_a_function_stays_one_whatever_is_imported() -> None:
    code = (
        "import sdpack.api.making, pkgutil\n"
        "print({m.name for m in pkgutil.iter_modules(sdpack.__path__)} & {*sdpack.__all__})"
    )
    assert python(code).strip() == "set()"


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
        assert pixels(bundle.draw("a cat", seed=np.int64(3))) == pixels(drawn[:1])
        assert pixels(bundle.draw("a cat")) == pixels(bundle.draw("a cat", seed=0))


def test_engines_are_loaded_by_the_first_draw_and_freed_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    real = drawing.pipeline

    def pipeline(*given: Any, **named: Any) -> Any:
        made.append((given[2:], named))
        return real(*given, **named)

    monkeypatch.setattr(drawing, "pipeline", pipeline)
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
    "no profile": (lambda: sdpack.Profile.load("4gb-gp"), sdpack.ProfileError, "mean 4gb-gpu"),
    "no catalog": (lambda: sdpack.Catalog.load("sdx"), sdpack.CatalogError, "mean sdxl"),
    "build for no profile": (
        lambda: sdpack.build(profile="nowhere"),
        sdpack.ProfileError,
        "no profile 'nowhere'",
    ),
    "too much memory": (
        lambda: sdpack.build(profile="4gb-gpu", memory="5GiB"),
        sdpack.InputError,
        "5GiB of memory is more than the 4.00 GiB of 4gb-gpu; give less, or another profile",
    ),
    "both": (
        lambda: sdpack.build(profile="4gb-gpu", catalog="sd15", model="mine"),
        sdpack.CatalogError,
        "give --model or --catalog, not both",
    ),
    "no sizes": (
        lambda: sdpack.build(profile="4gb-gpu", sizes=512),  # type: ignore[arg-type]
        sdpack.InputError,
        "sizes is 512; give a list",
    ),
    "no preference": (
        lambda: sdpack.build(profile="4gb-gpu", prefer="size"),
        sdpack.InputError,
        "prefer is 'size'; choose one of quality, speed, memory",
    ),
    "too many steps": (
        lambda: sdpack.build(profile="4gb-gpu", steps=1001),
        sdpack.InputError,
        "steps is 1001; give a whole number, from 1 to 1000",
    ),
    "no budgets": (lambda: sdpack.study(budgets=[]), sdpack.InputError, "takes 1 to 64 budgets"),
    "odd budgets": (
        lambda: sdpack.study(budgets=["much"]),
        sdpack.InputError,
        "unknown budget 'much'",
    ),
    "no graph": (
        lambda: sdpack.quantize(model="nowhere.onnx", precision="w8"),
        sdpack.GraphError,
        "nowhere.onnx: there is no such file",
    ),
    "no precision": (
        lambda: sdpack.quantize(model="nowhere.onnx", precision="w5"),
        sdpack.InputError,
        "'w5' is not a valid precision",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_in_a_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call, kind, said = REFUSED[name]
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert issubclass(kind, sdpack.SdpackError)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [*tmp_path.iterdir()]


def test_it_quantizes_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDPACK_CACHE", str(tmp_path / "cache"))
    weight = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
    graph, said = saved(linear(weight), tmp_path / "graph"), list[str]()
    for precision in ("w8", "w4"):
        result = sdpack.quantize(model=graph, precision=precision, progress=said.append)
        assert result.out == graph.with_name(f"{graph.stem}.{precision}.onnx")
        assert result.out.is_file()
        assert result.bytes_after < result.bytes_before
    assert f"reading {graph}" in said
    with pytest.raises(AttributeError):
        result.out = graph  # type: ignore[misc]


def test_a_profile_and_a_catalog_are_had_by_name_and_by_path(tmp_path: Path) -> None:
    profile = sdpack.Profile.load("4gb-gpu")
    assert profile.memory.total == 4 * 2**30
    assert sdpack.Profile.load(ROOT / "profiles" / "4gb-gpu.yaml") == profile
    assert sdpack.Catalog.load("sdxl").name == "sdxl"
    assert sdpack.Catalog.load(ROOT / "zoo").name == "zoo"
