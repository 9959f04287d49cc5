from __future__ import annotations

import pytest

from tests.sdpack.cli.calling import run


@pytest.mark.parametrize(
    "text", ["much", "8MiB:64MiB", "64MiB:8MiB:8", "8MiB:64MiB:x", "0MiB:1MiB:3"]
)
def test_budgets_that_are_none_are_refused_in_one_line_of_usage(text: str) -> None:
    ran = run("study", "--budgets", text)
    assert ran.exit_code == 2
    assert [line for line in ran.stderr.splitlines() if "Error: " in line] == [
        ran.stderr.splitlines()[-1]
    ]


def test_a_budget_that_nothing_fits_needs_no_export() -> None:
    """A kilobyte holds no part of the zoo; the smallest budget that would do is told."""
    ran = run("study", "--budgets", "1KiB", "--profile", "cpu-2gb")
    assert ran.exit_code == 2
    assert "the smallest" in ran.stderr
