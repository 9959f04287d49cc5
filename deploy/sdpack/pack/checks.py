"""Checks of a request before anything is loaded, exported or built."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from sdpack.documents.catalog import Candidate
from sdpack.documents.catalog_files import LocatedCatalog
from sdpack.documents.profile import format_size
from sdpack.domain.placement import Role
from sdpack.errors import CatalogError, InfeasibleError
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.families import family_of, latent_step, most_rows
from sdpack.export.fitting import check_parts_fit
from sdpack.export.source import local_folder
from sdpack.pack.candidates import Candidates
from sdpack.pack.forecast.candidate_sizes import CandidateSizes
from sdpack.pack.forecast.smallest import LowerBound
from sdpack.pack.loras import check_loras
from sdpack.pack.planning.fit import MemoryEstimates, fit
from sdpack.pack.planning.lower_bound import LEAST_PROCESS, least_footprints
from sdpack.pack.planning.mix import mixes
from sdpack.pack.real_images import real_images
from sdpack.pack.selection.catalog_judge import CatalogJudge
from sdpack.progress import Say


def check(candidates: Candidates, say: Say = lambda _: None) -> None:
    """Check a request, and fetch the sources that are not on this machine yet.

    A budget that cannot hold the parameters of any mix is refused before anything is fetched.

    Args:
        say: told of judges that the build will leave out.

    Raises:
        CatalogError: a file the catalog names is missing, a size cannot be drawn, or a LoRA has
            weights that no candidate uses.
        SourceError: a checkpoint or a LoRA is damaged, a LoRA does not fit, or a config is not
            valid.
        InfeasibleError: even the weights and one convolution of the smallest mix do not fit.
        SchedulerError: a denoiser cannot be run with its scheduler.
        MissingPackageError: what a judge needs is not installed.
    """
    parameters = CandidateSizes(candidates).known_parameters()
    if parameters is not None:
        LowerBound(candidates.request, parameters).check()
    check_catalog(candidates.request.located)
    _check_parts_fit(candidates)
    check_loras(candidates.catalog, candidates.checkpoint, candidates.folder)
    _check_sizes(candidates)
    _check_lower_bound(candidates)
    _check_schedulers(candidates)
    CatalogJudge(candidates.request.located, candidates.folder).check(say)


def check_catalog(located: LocatedCatalog) -> None:
    """Check that every file a catalog names on this machine exists and can be read.

    Raises:
        CatalogError: a file is missing, or there are fewer real images than prompts.
        SourceError: a checkpoint is damaged.
    """
    missing = [f"{key}: {path} is missing" for key, path in located.missing()]
    if missing:
        raise CatalogError("; ".join(missing))
    catalog, quality = located.catalog, located.catalog.quality
    groups: tuple[Mapping[str, Candidate], ...] = (
        catalog.text_encoders,
        catalog.denoisers,
        catalog.decoders,
    )
    weighted = [candidate.source for group in groups for candidate in group.values()]
    weighted += [bridge.source for bridge in catalog.bridges]
    weighted += [judge.source for judge in quality.judges.values()]
    for source in weighted:
        if source.path is not None:
            Checkpoint(local_folder(source, located.folder)).check_readable()
    for key in (quality.calibration, quality.samples):
        located.prompts(key)
    if quality.real_images is not None:
        real_images(located, quality.real_images)


def _check_parts_fit(candidates: Candidates) -> None:
    for parts in candidates.catalog.mixable():
        checkpoints = {
            role: candidates.checkpoint(role, name) for role, name in parts.names.items()
        }
        encoders = {role: part for role, part in checkpoints.items() if role.encodes_text}
        where = f"{candidates.catalog.name}: {' + '.join(parts.names.values())}"
        bridged = frozenset(parts.bridges)
        denoiser, decoder = checkpoints[Role.DENOISER], checkpoints[Role.DECODER]
        check_parts_fit(where, encoders, denoiser, decoder, bridged)


def _check_sizes(candidates: Candidates) -> None:
    for name in _denoisers(candidates):
        checkpoint, pixels = (
            candidates.checkpoint(Role.DENOISER, name),
            candidates.pixels(Role.DENOISER, name),
        )
        family, config = family_of(checkpoint), checkpoint.config
        step = pixels * latent_step(family, config)
        wrong = [size for size in candidates.request.sizes if size[0] % step or size[1] % step]
        if wrong:
            raise CatalogError(
                f"{name} draws images whose sides are multiples of {step} pixels, not "
                f"{format_size(wrong[0])}; choose another --size"
            )
        most = most_rows(family, config)
        large = [size for size in candidates.request.sizes if most and max(size) > most * pixels]
        if large:
            raise CatalogError(
                f"{name} supports sides of up to {most * pixels} pixels, but "
                f"{format_size(large[0])} is larger; choose another --size"
            )


def _denoisers(candidates: Candidates) -> list[str]:
    """The denoisers that work with other parts of the catalog."""
    return list(dict.fromkeys(parts.denoiser for parts in candidates.catalog.mixable()))


def _check_schedulers(candidates: Candidates) -> None:
    from sdpack.export.sampler import scheduler_table

    for name in _denoisers(candidates):
        checkpoint, sampling = (
            candidates.checkpoint(Role.DENOISER, name),
            candidates.request.sampling_of(name),
        )
        folder, family = candidates.folder(sampling.scheduler), family_of(checkpoint)
        patch = latent_step(family, checkpoint.config)
        sizes = dict.fromkeys(candidates.latent_sizes(Role.DENOISER, name))
        for rows, steps in product(sizes, sampling.steps):
            scheduler_table(folder, family, steps, rows, patch)


def _check_lower_bound(candidates: Candidates) -> None:
    request = candidates.request
    every = mixes(candidates.catalog, request.precisions)
    memory = MemoryEstimates(least_footprints(candidates), LEAST_PROCESS.get(request.runtime, 0))
    try:
        fit(every, candidates.placements[-1:], memory, request.budget)
    except InfeasibleError as error:
        raise InfeasibleError(
            f"{error}; this is a lower bound from the sizes of the checkpoints: the exact need "
            "is known once the graphs are made",
            error.smallest_bytes,
        ) from error
