"""What a server takes from its clients, and how long it keeps what it made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

KIB, MIB = 2**10, 2**20
MOST_GUIDANCE = 100.0
KEPT_SHARE = 64  # of the machine's memory, pictures that may be kept for whoever fetches them
UNREAD_SHARE = 32  # and answers that are not read yet


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
        queue: pictures accepted and not yet drawn, those being drawn included.
        pictures: of one request.
        prompt: characters.
        requests: answered at once.
        body_bytes: of a request.
        wait_s: how long a batch that is not full waits for more pictures of its kind.
        timeout_s: from a request's arrival to its last picture.
        read_s: for a client to send its request.
        keep_s: how long a finished job is kept for whoever asks.
        keep_jobs, keep_bytes: how many finished jobs, and of how many bytes of pictures.
        linger_s: how long a server that is told to end keeps pictures nobody has fetched yet.
    """

    queue: int = 64
    pictures: int = 10
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
        """These limits on a machine of so much memory: fewer pictures are kept on a small one."""
        return replace(self, keep_bytes=min(self.keep_bytes, host_bytes // KEPT_SHARE))
