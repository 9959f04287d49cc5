"""How a mix runs on the device: when its parts are loaded, and how much is computed at once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pydantic import ConfigDict, PositiveInt, with_config


class Role(StrEnum):
    """The task of a part; members are in the order in which parts run.

    A family has one to three text encoders, each with its own role.
    """

    TEXT_ENCODER = "text_encoder"
    TEXT_ENCODER_2 = "text_encoder_2"
    TEXT_ENCODER_3 = "text_encoder_3"
    DENOISER = "denoiser"
    DECODER = "decoder"

    @property
    def encodes_text(self) -> bool:
        return self in TEXT_ENCODERS

    @property
    def group(self) -> str:
        """The catalog key that lists this role's candidates."""
        return "text_encoders" if self.encodes_text else f"{self.value}s"

    @property
    def words(self) -> str:
        """The role as words, such as "text encoder 2"."""
        return self.value.replace("_", " ")


TEXT_ENCODERS = (Role.TEXT_ENCODER, Role.TEXT_ENCODER_2, Role.TEXT_ENCODER_3)


class Loading(StrEnum):
    """`resident`: every part stays loaded; `phased`: each is loaded when it is needed."""

    RESIDENT = "resident"
    PHASED = "phased"


class Guidance(StrEnum):
    """`batched`: both halves of classifier-free guidance in one batch; `sequential`: in turn."""

    BATCHED = "batched"
    SEQUENTIAL = "sequential"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Placement:
    """One way to run a mix; a manifest stores it as it is.

    Attributes:
        tile: side of a decoder tile in latent pixels, without its halo; None decodes whole images.
    """

    loading: Loading = Loading.RESIDENT
    guidance: Guidance = Guidance.BATCHED
    tile: PositiveInt | None = None

    def __str__(self) -> str:
        words = [self.loading.value, self.guidance.value]
        return ", ".join([*words, f"tiles of {self.tile}"] if self.tile else words)
