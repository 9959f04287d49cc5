"""The names of the Python API, their signatures, and what importing them imports."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sdpack
from sdpack import errors

from tests.sdpack.interpreter import python

ROOT = Path(__file__).parents[1]
UNCHECKED: Any = sdpack  # as code that no type checker has seen uses it

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
    "TooSlowError",
    "UnsupportedGraphError",
    "WorkerError",
}
OTHERS = {"BuildOptions", "Bundle", "Catalog", "Profile", "__version__"}
PARTS = (
    "catalog: PathLikeText | None = None, model: PathLikeText | None = None, "
    "progress: Say | None = None, **options: Unpack[BuildOptions]"
)
OPTIONS = {
    "sizes": "Sequence[tuple[int, int]]",
    "batch": "int | None",
    "steps": "int | None",
    "images": "int",
    "prefer": "str",
    "weigh": "Mapping[str, float]",
    "draw_on": "str",
    "workers": "int | None",
    "executor": "str",
    "address": "str | None",
    "max_seconds": "float | None",
    "within": "str | float | None",
    "base": "str | None",
    "prediction": "str | None",
    "with_folder": "PathLikeText | None",
    "vae": "PathLikeText | None",
    "embeddings": "Sequence[PathLikeText]",
}
SIGNATURES = {
    "open_bundle": "(path: PathLikeText, runtime: str | None = None, threads: int | None = None, "
    "low_memory: bool | None = None) -> Bundle",
    "build": "(*, profile: PathLikeText, memory: str | int | None = None, "
    f"out: PathLikeText | None = None, {PARTS}) -> BuildResult",
    "study": "(*, budgets: str | Sequence[str | int], profile: PathLikeText = '4gb-gpu', "
    f"out: PathLikeText = 'study', {PARTS}) -> FinishedStudy",
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


def test_the_names_are_these() -> None:
    functions = {name for name in SIGNATURES if "." not in name}
    assert set(sdpack.__all__) == ERRORS | OTHERS | functions
    assert dir(sdpack) == sorted(sdpack.__all__) == sdpack.__all__
    assert all(hasattr(sdpack, name) for name in sdpack.__all__)


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'sdpack' has no attribute 'open'"):
        _ = UNCHECKED.open


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_is_this(name: str) -> None:
    found: Any = sdpack
    for step in name.split("."):
        found = getattr(found, step)
    assert written(found) == SIGNATURES[name]


def test_the_options_of_build_and_study_are_these() -> None:
    fields: dict[str, Any] = sdpack.BuildOptions.__annotations__
    assert {name: field.__forward_arg__ for name, field in fields.items()} == OPTIONS
    assert sdpack.BuildOptions.__required_keys__ == frozenset()


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


def test_a_profile_and_a_catalog_are_had_by_name_and_by_path(tmp_path: Path) -> None:
    profile = sdpack.Profile.load("4gb-gpu")
    assert profile.memory.total == 4 * 2**30
    assert sdpack.Profile.load(ROOT / "profiles" / "4gb-gpu.yaml") == profile
    assert sdpack.Catalog.load("sdxl").name == "sdxl"
    assert sdpack.Catalog.load(ROOT / "zoo").name == "zoo"


@pytest.mark.parametrize(
    ("load", "kind", "said"),
    [
        (lambda: sdpack.Profile.load("4gb-gp"), sdpack.ProfileError, "mean 4gb-gpu"),
        (lambda: sdpack.Catalog.load("sdx"), sdpack.CatalogError, "mean sdxl"),
    ],
)
def test_a_misspelt_name_is_answered_with_what_was_meant(
    load: Callable[[], object], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        load()
