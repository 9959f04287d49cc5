"""How a mix is run on the device: what is loaded when, and how much is computed at once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a part does; the order is that of work."""

    TEXT_ENCODER = "text_encoder"
    DENOISER = "denoiser"
    DECODER = "decoder"


class Loading(StrEnum):
    """`resident`: every part stays loaded; `phased`: each is loaded when its turn comes."""

    RESIDENT = "resident"
    PHASED = "phased"


class Guidance(StrEnum):
    """Both halves of classifier-free guidance in one batch, or one after the other."""

    BATCHED = "batched"
    SEQUENTIAL = "sequential"


@dataclass(frozen=True)
class Placement:
    """One way to run a mix.

    Attributes:
        tile: side in latent pixels of the pieces the decoder works on; None decodes whole
            pictures.
    """

    loading: Loading = Loading.RESIDENT
    guidance: Guidance = Guidance.BATCHED
    tile: int | None = None

    def __str__(self) -> str:
        words = [self.loading.value, self.guidance.value]
        return ", ".join([*words, f"tiles of {self.tile}"] if self.tile else words)
