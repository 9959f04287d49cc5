"""The source of weights and their licence, as manifests and records have them."""

from __future__ import annotations

from collections.abc import Iterator

from sdpack.documents.document import Document
from sdpack.domain.licences import LicensedPart

NOT_RECORDED = "not recorded"


class Origin(Document):
    """The source of weights, and their licence."""

    source: str
    licence: str


class MergedLora(Origin):
    """A LoRA that was merged into weights, and the factor of its update."""

    scale: float = 1.0


class CandidateOrigin(Origin):
    """The source of a candidate's weights.

    Attributes:
        loras: LoRAs merged into them; None in files of older versions, which do not say.
    """

    loras: tuple[MergedLora, ...] | None = None


def licensed(name: str, licence: str, loras: tuple[MergedLora, ...] | None) -> list[LicensedPart]:
    """Return a part and the LoRAs that were merged into it, each with its licence.

    Args:
        name: the part, such as "denoiser lcm".
        licence: its own licence.
        loras: None if LoRAs were not recorded; they then count as one of an unknown licence.
    """
    return [LicensedPart(name, licence), *_merged(name, loras)]


def bridge_name(encoder: str, denoiser: str) -> str:
    """Return the name of a bridge.

    Args:
        encoder: its text encoder, such as "text encoder s".
        denoiser: the candidate it leads to.
    """
    return f"bridge from {encoder} to {denoiser}"


def _merged(name: str, loras: tuple[MergedLora, ...] | None) -> Iterator[LicensedPart]:
    if loras is None:
        yield LicensedPart(f"LoRAs of {name}, if there are any", NOT_RECORDED)
        return
    for lora in loras:
        yield LicensedPart(f"LoRA {lora.source} of {name}", lora.licence)
