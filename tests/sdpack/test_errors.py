from __future__ import annotations

import re

import pytest
from sdpack import errors

CLASSES = {
    name: found
    for name, found in vars(errors).items()
    if isinstance(found, type) and issubclass(found, errors.SdpackError)
}


def drawn_tree() -> dict[str, str]:
    """Each class in the tree of the module's docstring, with the class that it hangs under."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)(\w+Error)\b", line)
        if match:
            depth = len(match[1]) // 4
            above[depth:] = [match[2]]
            if depth:
                parents[match[2]] = above[depth - 1]
    return parents


def test_the_tree_in_the_docstring_matches_the_classes() -> None:
    bases = {name: found.__bases__[0].__name__ for name, found in CLASSES.items()}
    del bases["SdpackError"]
    assert drawn_tree() == bases


@pytest.mark.parametrize("name", CLASSES)
def test_only_wrong_input_and_limits_that_nothing_meets_are_usage_errors(name: str) -> None:
    limits = errors.InfeasibleError | errors.TooSlowError
    wrong_input = issubclass(CLASSES[name], errors.InputError | limits)
    assert CLASSES[name].exit_code == (2 if wrong_input else 1)


def test_an_infeasible_budget_carries_the_smallest_budget_that_works() -> None:
    error = errors.InfeasibleError("nothing fits", 3 * 2**20)
    assert (str(error), error.smallest_bytes) == ("nothing fits", 3 * 2**20)


@pytest.mark.parametrize(
    ("extra", "how"),
    [
        ("cpu", "pip install 'sdpack[cpu]'"),
        ("build", "pip install ./zoo '.[build]' in a clone"),
        ("", "JetPack"),
    ],
)
def test_a_missing_package_says_how_to_install_it(extra: str, how: str) -> None:
    message = str(errors.MissingPackageError("onnxruntime", extra, "drawing"))
    assert message.startswith("drawing needs onnxruntime; ")
    assert how in message
    assert "\n" not in message
