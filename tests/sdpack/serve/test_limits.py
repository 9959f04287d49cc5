from __future__ import annotations

from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st
from sdpack.serve.limits import KEPT_SHARE, Limits
from sdpack.units import MIB


@given(st.integers(1, 2**42))
def test_less_memory_lowers_only_the_bytes_of_kept_pictures(host_bytes: int) -> None:
    usual = Limits()
    found = usual.within(host_bytes)
    assert found.keep_bytes == min(usual.keep_bytes, host_bytes // KEPT_SHARE)
    assert {**asdict(found), "keep_bytes": 0} == {**asdict(usual), "keep_bytes": 0}
    assert found.within(host_bytes) == found


def test_4_gib_are_enough_for_the_usual_limit_of_kept_pictures() -> None:
    # A 64th of 4 GiB is 64 MiB.
    assert Limits().within(4096 * MIB).keep_bytes == Limits().keep_bytes == 64 * MIB
    assert Limits().within(2048 * MIB).keep_bytes == 32 * MIB
