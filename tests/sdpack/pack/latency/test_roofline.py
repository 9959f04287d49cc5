from __future__ import annotations

import pytest
from sdpack.documents.profile import find_profile, shipped_profiles
from sdpack.errors import ProfileError
from sdpack.memory.work import NodeWork
from sdpack.pack.latency.roofline import (
    BANDWIDTH_SHARE,
    COMPUTE_SHARE,
    START_S,
    predicted_s,
)

PROFILE = find_profile("8gb-gpu")


def test_a_node_takes_the_longer_of_computing_and_moving() -> None:
    flops = COMPUTE_SHARE * PROFILE.stated_throughput
    moved = BANDWIDTH_SHARE * PROFILE.memory.bandwidth
    computing = NodeWork(macs=flops / 2, moved_bytes=1)
    moving = NodeWork(macs=1, moved_bytes=int(moved))
    assert predicted_s([computing], PROFILE) == pytest.approx(1, abs=2 * START_S)
    assert predicted_s([moving], PROFILE) == pytest.approx(1, abs=2 * START_S)
    assert predicted_s([computing, moving], PROFILE) == pytest.approx(2, abs=3 * START_S)


def test_fewer_bits_compute_faster() -> None:
    seconds = [predicted_s([NodeWork(1e12, 1, bits)], PROFILE) for bits in (8, 16, 32)]
    assert seconds[1] / seconds[0] == pytest.approx(2, rel=0.01)
    assert seconds[2] / seconds[1] == pytest.approx(2, rel=0.01)


def test_every_shipped_gpu_states_its_throughput_and_a_profile_without_it_is_refused() -> None:
    for profile in shipped_profiles():
        assert (profile.throughput is not None) is profile.runtime.on_gpu
    unknown = PROFILE.model_copy(update={"throughput": None})
    with pytest.raises(ProfileError, match="throughput is missing"):
        predicted_s([NodeWork(1, 1)], unknown)
