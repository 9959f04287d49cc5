"""Tests mirror the source: deploy/sdpack/x/y.py is tested in tests/sdpack/x/test_y.py."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE, TESTS = ROOT / "deploy" / "sdpack", ROOT / "tests" / "sdpack"
JOBS = "pack"  # its modules are steps of long jobs, and many are tested as parts of these
STEPS = {
    "e2e/test_build.py": (
        "assembly build candidates checks real_images toolchain "
        "bundling/files bundling/manifests bundling/winner "
        "planning/feasible preselection/candidate_sets preselection/mixes_of_sets "
        "recording/build_record recording/kept recording/roster "
        "selection/contact_sheet selection/evaluation_summary "
        "selection/evidence selection/measurements selection/samples "
        "variants/calibration variants/calibration_inputs variants/calibration_mixes "
        "variants/built_variant variants/calibration_recordings "
        "variants/engine_plans variants/sampler_tables variants/source_graphs variants/tokenizers "
        "variants/variant_builder variants/variant_pieces"
    ),
    "e2e/test_mixed.py": (
        "mixed/choices mixed/layer_options mixed/sensitivity "
        "variants/graph_files variants/variant_graphs"
    ),
    "e2e/test_trouble.py": "parallel/build_worker parallel/graphs",
    "sdpack/cli/test_request_options.py": "options",
    "sdpack/pack/forecast/test_build_plan.py": (
        "forecast/candidate_sizes forecast/smallest forecast/speed forecast/stage_costs "
        "forecast/stages"
    ),
    "sdpack/pack/single_graph/test_quantize.py": (
        "single_graph/bit_budget single_graph/recipe single_graph/replacing single_graph/request "
        "single_graph/source_outputs"
    ),
    "sdpack/pack/selection/test_second_opinion.py": "selection/opinion",
    "sdpack/pack/selection/test_selection.py": "selection/mix_races",
    "sdpack/pack/study/test_study.py": "study/budget study/comparison_rules",
    "sdpack/pack/test_request.py": "planning/lower_bound",
}
"""The modules of jobs without a test file of their own, by the file that tests the job."""
ACROSS = {
    "cli/test_help.py",
    "cli/test_misuse.py",
    "documents/test_new_catalogs.py",
    "export/test_adopt_language_models.py",
    "export/test_old_folders.py",
    "export/test_schedulers.py",
    "serve/test_cross_origin.py",
    "serve/test_openapi.py",
    "serve/test_truncation.py",
    "test_docs_python.py",
}
"""Files of tests that hold for several modules at once."""


@cache
def modules() -> list[str]:
    """Every module that is more than a docstring, from the source's folder on."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        relative = path.relative_to(SOURCE)
        has_code = any(not isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)
        if relative.parts[0] != JOBS and has_code:
            found.append(relative.as_posix())
    return found


def file_of(module: str) -> Path:
    """Where a module's tests are; those of a package's `__init__` stand beside its folder."""
    path = TESTS / module
    if path.name == "__init__.py":
        path = path.parent
    return path.with_name(f"test_{path.stem}.py")


def has_tests(path: Path) -> bool:
    functions = [
        node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    return any(function.name.startswith("test_") for function in functions)


def steps() -> set[str]:
    """Every module of jobs that is more than a docstring and has no test file of its own."""
    return {
        path.relative_to(SOURCE / JOBS).with_suffix("").as_posix()
        for path in (SOURCE / JOBS).rglob("*.py")
        if not file_of(path.relative_to(SOURCE).as_posix()).is_file() and path.stem != "__init__"
    }


@pytest.mark.parametrize("module", modules())
def test_every_module_has_tests_in_a_file_of_its_name(module: str) -> None:
    path = file_of(module)
    assert path.is_file(), f"{module} is to be tested in {path.relative_to(ROOT)}"
    assert has_tests(path)


def test_steps_of_jobs_have_tests_of_their_own_or_name_those_of_their_job() -> None:
    listed = [step for names in STEPS.values() for step in names.split()]
    assert sorted(listed) == sorted(steps())
    assert all(has_tests(ROOT / "tests" / name) for name in STEPS)


def test_every_test_file_is_named_after_a_module_or_listed_as_spanning_several() -> None:
    named = {file_of(module) for module in modules()}
    there = {path for path in TESTS.rglob("test_*.py") if path.relative_to(TESTS).parts[0] != JOBS}
    assert {path.relative_to(TESTS).as_posix() for path in there - named} == ACROSS


def test_every_folder_of_tests_is_a_folder_of_the_source() -> None:
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    assert [folder for folder in folders if not (SOURCE / folder).is_dir()] == []
