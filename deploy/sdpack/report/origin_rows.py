"""The rows of a table that name sources of weights, their licences and what these say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sdpack.documents.origins import CandidateOrigin, Origin
from sdpack.domain.licences import terms


def origin_rows(origins: Mapping[str, CandidateOrigin]) -> Iterator[list[str]]:
    """Yield a row for each candidate and bridge, followed by the LoRAs merged into it."""
    for name, origin in origins.items():
        yield [name, _words(origin)]
        for lora in origin.loras or ():
            yield [f"LoRA of {name}", f"{_words(lora)}; scale {lora.scale:g}"]


def _words(origin: Origin) -> str:
    return f"{origin.source}; {origin.licence}, {terms(origin.licence).words}"
