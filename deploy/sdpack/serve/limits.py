"""What a server accepts from its clients, and how long it keeps images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from sdpack.units import KIB, MIB

MOST_GUIDANCE = 100.0
RANDOM_SEEDS = 2**32  # random seeds are below this
KEPT_SHARE = 64  # at most this fraction (1/64) of the machine's memory holds unfetched images
UNREAD_SHARE = 32  # at most this fraction holds responses that clients have not read yet


@dataclass(frozen=True)
class Limits:
    """The limits of a server.

    Attributes:
        queue: images accepted and not yet drawn, including those being drawn.
        images: per request.
        prompt: characters of a prompt.
        requests: answered at the same time.
        body_bytes: maximum size of a request.
        wait_s: how long an incomplete batch waits for more images of its kind.
        timeout_s: from a request's arrival to its last image.
        read_s: for a client to send its request.
        keep_s: how long a finished job is kept.
        keep_jobs, keep_bytes: how many finished jobs are kept, and bytes of their images.
        linger_s: how long a server that is shutting down keeps unfetched images.
    """

    queue: int = 64
    images: int = 10
    prompt: int = 4000
    requests: int = 512
    body_bytes: int = 256 * KIB
    wait_s: float = 0.01
    timeout_s: float = 300.0
    read_s: float = 30.0
    keep_s: float = 600.0
    keep_jobs: int = 256
    keep_bytes: int = 64 * MIB
    linger_s: float = 5.0

    def within(self, host_bytes: int) -> Self:
        """These limits on a machine with this much memory: a small one keeps fewer images."""
        return replace(self, keep_bytes=min(self.keep_bytes, host_bytes // KEPT_SHARE))
