"""The schedulers of a request's denoisers, as tables of coefficients."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from sdpack.documents.profile import Size
from sdpack.domain.placement import Role
from sdpack.export.families import family_of, latent_step
from sdpack.pack.candidates import Candidates
from sdpack.runtime.sampler import SamplerTable, read_sampler
from sdpack.store.artifacts import REVISION, Store, digest, files_digest
from sdpack.version import versions

TABLE_FILE = "sampler.json"
TABLES_REVISION = 2  # of how tables are made, in addition to the revision of all artifacts


@dataclass
class SamplerTables:
    """Converts schedulers into tables, each once."""

    candidates: Candidates
    store: Store
    _read: dict[str, SamplerTable] = field(default_factory=dict, init=False)

    def of(
        self, denoiser: str, latents: Size | None = None, steps: int | None = None
    ) -> SamplerTable:
        """A denoiser's scheduler as a table.

        Args:
            latents: height and width of an image's latents; by default those of a measured image.
            steps: number of steps; default: the catalog's, or the largest of several.

        Raises:
            SchedulerError: the scheduler is not linear, or does not support this many steps.
        """
        candidates = self.candidates
        rows = latents or candidates.latent_rows(Role.DENOISER, denoiser)
        sampling = candidates.request.sampling_of(denoiser)
        count = steps or sampling.most_steps
        checkpoint = candidates.checkpoint(Role.DENOISER, denoiser)
        family = family_of(checkpoint)
        patch = latent_step(family, checkpoint.config)
        folder = candidates.folder(sampling.scheduler)
        inputs = {
            "scheduler": files_digest(folder),
            "steps": count,
            "family": family,
            "size": rows,
            "patch": patch,
            "tools": versions(("torch", "diffusers")),
            "revision": [REVISION, TABLES_REVISION],
        }
        key = digest(inputs)
        if key not in self._read:

            def build(target: Path) -> None:
                from sdpack.export.sampler import scheduler_table

                table = scheduler_table(folder, family, count, rows, patch)
                (target / TABLE_FILE).write_text(json.dumps(table.to_json()) + "\n")

            artifact = self.store.make("sampler", inputs, build)
            self._read[key] = read_sampler(artifact.path(TABLE_FILE))
        return self._read[key]
