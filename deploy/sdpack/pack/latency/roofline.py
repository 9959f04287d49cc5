"""Predicted time of a graph on a GPU that is not here.

Every node takes the longer of computing and moving its data (the roofline model, Williams et al.,
Communications of the ACM 52(4), 2009), at fixed shares of the device's peak rates. This is a
prediction: the shares are assumptions, which were not fitted to measurements on any GPU.
"""

from __future__ import annotations

from collections.abc import Iterable

from sdpack.documents.profile import Profile
from sdpack.memory.work import NodeWork

COMPUTE_SHARE = 0.5  # of the peak rate that products reach
BANDWIDTH_SHARE = 0.75  # of the peak bandwidth
RATES = {8: 2.0, 32: 0.5}  # times as many operations a second as in fp16, by bits
START_S = 5e-6  # to start a kernel
LOAD_BYTES_PER_S = 2e9  # reading an engine from disk cache and copying it to the device


def predicted_s(work: Iterable[NodeWork], profile: Profile) -> float:
    """Seconds of one run of a graph on a profile's device.

    Raises:
        ProfileError: the profile states no throughput.
    """
    macs_per_s = COMPUTE_SHARE * profile.stated_throughput / 2
    bytes_per_s = BANDWIDTH_SHARE * profile.memory.bandwidth
    return sum(
        START_S
        + max(
            node.macs / (macs_per_s * RATES.get(node.bits, 1.0)),
            node.moved_bytes / bytes_per_s,
        )
        for node in work
    )
