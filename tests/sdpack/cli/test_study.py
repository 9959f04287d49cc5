from __future__ import annotations

import pytest

from tests.sdpack.cli.calling import run


@pytest.mark.parametrize(
    "text", ["much", "8MiB:64MiB", "64MiB:8MiB:8", "8MiB:64MiB:x", "0MiB:1MiB:3"]
)
def test_invalid_budgets_are_refused_in_one_line(text: str) -> None:
    ran = run("study", "--budgets", text)
    assert ran.exit_code == 2
    assert [line for line in ran.stderr.splitlines() if "Error: " in line] == [
        ran.stderr.splitlines()[-1]
    ]


def test_a_budget_too_small_for_anything_is_refused_with_the_smallest_that_works() -> None:
    """A kilobyte holds no part of the zoo; the smallest budget that would do is told."""
    ran = run("study", "--budgets", "1KiB", "--profile", "cpu-2gb")
    assert ran.exit_code == 2
    assert "the smallest" in ran.stderr
