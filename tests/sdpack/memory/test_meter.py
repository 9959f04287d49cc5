from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sdpack.memory.meter import MeterError, control_group, meter

MIB = 2**20


def take(mib: int) -> list[str]:
    """A command that touches so much memory and then gives it back."""
    return [sys.executable, "-c", f"x = bytearray({mib} * 2**20); del x; print('done')"]


def test_the_peak_counts_what_was_given_back() -> None:
    idle = meter(take(0), 1024 * MIB)
    busy = meter(take(200), 1024 * MIB)
    assert 195 * MIB < busy.peak_bytes - idle.peak_bytes < 210 * MIB
    assert busy.output == "done\n"


def test_what_exceeds_its_cap_is_killed() -> None:
    with control_group(64 * MIB) as group:
        if group is None:
            pytest.skip("this system lets us make no memory control group")
    with pytest.raises(MeterError, match=r"more than 100\.0 MiB"):
        meter(take(200), 100 * MIB)


def test_without_a_group_it_is_measured_and_says_so(tmp_path: Path) -> None:
    seen = meter(take(200), 100 * MIB, root=tmp_path)
    assert not seen.capped
    assert seen.peak_bytes > 200 * MIB


def test_no_group_is_left_behind() -> None:
    with control_group(64 * MIB) as group:
        if group is None:
            pytest.skip("this system lets us make no memory control group")
        folder = group.folder
        assert folder.is_dir()
    assert not folder.exists()


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(MeterError, match="status 3: no luck"):
        meter(
            [sys.executable, "-c", "import sys; print('no luck', file=sys.stderr); sys.exit(3)"],
            MIB * 512,
        )


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(MeterError, match="status 1"):
        meter(["/no/such/command"], MIB * 512)
