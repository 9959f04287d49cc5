"""Whether a catalog uses all of every file of low-rank weights it lists; nothing is exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sdpack.documents.catalog import Catalog, Denoiser, Source, TextEncoder
from sdpack.domain.placement import Role
from sdpack.errors import CatalogError
from sdpack.export.adapter_file import named, read_adapter
from sdpack.export.checkpoint import Checkpoint


def check_loras(
    catalog: Catalog,
    checkpoint: Callable[[Role, str], Checkpoint],
    folder: Callable[[Source], Path],
) -> None:
    """See that every LoRA fits the candidates that list it, and that they use all of its weights.

    A file may have weights for a denoiser and for text encoders; each candidate takes its own.

    Args:
        checkpoint: of a candidate.
        folder: of a source.

    Raises:
        SourceError: a file is damaged, is no LoRA, or does not fit a candidate.
        CatalogError: a file has weights that no candidate takes.
    """
    used: dict[Source, set[str]] = {}
    partial: set[Source] = set()
    for role in (Role.DENOISER, Role.TEXT_ENCODER):
        for name, candidate in catalog.candidates(role).items():
            loras = candidate.loras if isinstance(candidate, Denoiser | TextEncoder) else ()
            if not loras:
                continue
            found = checkpoint(role, name).adapted_components()
            for lora, components in zip(loras, found, strict=True):
                used.setdefault(lora.source, set()).update(components)
                partial |= {lora.source} if lora.partial else set()
    for source, taken in used.items():
        file = read_adapter(folder(source))
        left = [component for component in file.components if component not in taken]
        if left and source not in partial:
            raise CatalogError(
                f"{file.path} also has weights for {', '.join(left)} ({named(file.keys(left))}), "
                "which no candidate uses; list the file in the loras of that candidate as well, "
                "or set partial: true where it is listed to ignore them"
            )
