"""Checks the LoRA files of a catalog before anything is exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sdpack.documents.catalog import Catalog, Denoiser, TextEncoder
from sdpack.documents.source import Source
from sdpack.domain.placement import Role
from sdpack.errors import CatalogError
from sdpack.export.adapter_file import named, read_adapter
from sdpack.export.checkpoint import Checkpoint


def check_loras(
    catalog: Catalog,
    checkpoint: Callable[[Role, str], Checkpoint],
    folder: Callable[[Source], Path],
) -> None:
    """Check that every LoRA fits the candidates that list it, and that they use all its weights.

    A file may have weights for a denoiser and for text encoders; each candidate uses its own.

    Args:
        checkpoint: gives the checkpoint of a candidate.
        folder: gives the folder of a source.

    Raises:
        SourceError: a file is damaged, is not a LoRA, or does not fit a candidate.
        CatalogError: a file has weights that no candidate uses.
    """
    used: dict[Source, set[str]] = {}
    partial: set[Source] = set()
    for role in (Role.DENOISER, Role.TEXT_ENCODER):
        for name, candidate in catalog.candidates(role).items():
            loras = candidate.loras if isinstance(candidate, Denoiser | TextEncoder) else ()
            if not loras:
                continue
            adapted = checkpoint(role, name).adapted_components()
            for lora, components in zip(loras, adapted, strict=True):
                used.setdefault(lora.source, set()).update(components)
                partial |= {lora.source} if lora.partial else set()
    for source, used_components in used.items():
        file = read_adapter(folder(source))
        unused = [name for name in file.components if name not in used_components]
        if unused and source not in partial:
            raise CatalogError(
                f"{file.path} also has weights for {', '.join(unused)} "
                f"({named(file.keys(unused))}), which no candidate uses; list the file in the "
                "loras of that candidate as well, or set partial: true where it is listed to "
                "ignore them"
            )
