"""What a build is asked to make, and what follows from it before anything is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdpack.documents.catalog import Candidate, Denoiser, Sampling, Source, TextEncoder
from sdpack.documents.catalog_files import LocatedCatalog
from sdpack.documents.conditioning import Conditioning, EncoderOutputs, encoder_outputs
from sdpack.documents.profile import Profile, Size, format_size
from sdpack.domain.latents import LatentSpace
from sdpack.domain.picture_scaling import SCALING
from sdpack.domain.placement import Placement, Role
from sdpack.domain.precision import Precision, usual
from sdpack.errors import CatalogError, InfeasibleError
from sdpack.evaluate.rules import Rules
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.families import conditioning_of, family_of, latent_step, most_rows
from sdpack.export.fitting import check_parts_fit
from sdpack.export.latents import latents_of
from sdpack.export.source import local_folder
from sdpack.memory.predict import Footprint
from sdpack.pack.loras import check_loras
from sdpack.pack.planning.fit import fit
from sdpack.pack.planning.lower_bound import LEAST_PROCESS, least_footprint
from sdpack.pack.planning.mix import Variant, mixes, placements


@dataclass(frozen=True)
class BuildRequest:
    """What a build is asked to make.

    Attributes:
        out: the bundle's folder.
        budget_bytes: peak of the pipeline; None takes the profile's.
        asked_sizes: of pictures; none takes the catalog's, as far as the profile allows it.
        asked_batch: the most pictures drawn at once; None for the profile's.
        steps: of denoising; None takes the catalog's.
    """

    profile: Profile
    located: LocatedCatalog
    out: Path
    budget_bytes: int | None = None
    rules: Rules = field(default_factory=Rules)
    asked_sizes: tuple[Size, ...] = ()
    asked_batch: int | None = None
    steps: int | None = None
    _folders: dict[Source, Path] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )
    _checkpoints: dict[tuple[str, str], Checkpoint] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @property
    def budget(self) -> int:
        return self.profile.budget_bytes if self.budget_bytes is None else self.budget_bytes

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Of pictures: the first is what is measured, and drawn where nothing else is asked for."""
        side, shapes = self.located.catalog.image_size, self.profile.shapes
        return self.asked_sizes or ((min(side, shapes.height), min(side, shapes.width)),)

    @property
    def height(self) -> int:
        """Of a measured picture, in pixels."""
        return self.sizes[0][0]

    @property
    def width(self) -> int:
        return self.sizes[0][1]

    @property
    def is_large(self) -> bool:
        """Whether a CPU takes many seconds for a measured picture."""
        return SCALING.is_large(self.height, self.width)

    def latents(self, decoder: str) -> LatentSpace:
        """The space a decoder works in.

        Raises:
            SourceError: its config makes no sense.
            CatalogError: denoisers of different families want it run in different ways.
        """
        checkpoint = self.checkpoint(Role.DECODER, decoder)
        drawing = {m.denoiser for m in self.located.catalog.mixable() if m.decoder == decoder}
        families = {family_of(self.checkpoint(Role.DENOISER, name)) for name in sorted(drawing)}
        found = {latents_of(checkpoint, family) for family in families}
        if len(found) != 1:
            raise CatalogError(
                f"decoders.{decoder}: denoisers of the families "
                f"{', '.join(sorted(families)) or 'of none'} shift its latents differently; list "
                "it once per family, under another name and with other latents"
            )
        return found.pop()

    def pixels(self, role: Role, candidate: str) -> int:
        """Picture pixels a side of a latent pixel, of a denoiser or a decoder.

        Raises:
            SourceError: a decoder's config makes no sense.
            CatalogError: a denoiser's decoders enlarge differently.
        """
        if role is Role.DECODER:
            return self.latents(candidate).pixels
        decoders = {m.decoder for m in self.located.catalog.mixable() if m.denoiser == candidate}
        found = {self.latents(name).pixels: name for name in sorted(decoders)}
        if len(found) != 1:
            words = ", ".join(f"{name} {times} times" for times, name in sorted(found.items()))
            raise CatalogError(
                f"denoisers.{candidate}: its decoders upscale latents differently ({words}), so "
                "their pictures cannot be compared; give each decoder its own catalog"
            )
        return next(iter(found))

    def latent_sizes(self, role: Role, candidate: str) -> tuple[Size, ...]:
        """Height and width of the latents of each size, of a denoiser or a decoder."""
        pixels = self.pixels(role, candidate)
        return tuple((height // pixels, width // pixels) for height, width in self.sizes)

    def latent_rows(self, role: Role, candidate: str) -> Size:
        """Height and width of a measured picture's latents."""
        return self.latent_sizes(role, candidate)[0]

    @property
    def batch(self) -> int:
        """The most pictures drawn at once."""
        return self.asked_batch or self.profile.shapes.batch

    def sampling_of(self, denoiser: str) -> Sampling:
        """How a denoiser is run, with the steps that were asked for."""
        found = self.located.catalog.sampling_of(denoiser)
        return found if self.steps is None else found.model_copy(update={"steps": self.steps})

    @property
    def placements(self) -> list[Placement]:
        decoders = {parts.decoder for parts in self.located.catalog.mixable()}
        sides = [
            side
            for name in sorted(decoders)
            for rows in self.latent_sizes(Role.DECODER, name)
            for side in rows
        ]
        return placements(self.profile, max(sides))

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those to try: what the profile names, or else the device's usual ones."""
        if self.profile.precisions is not None:
            return self.profile.allowed_precisions
        return usual(self.profile.runtime, self.profile.device_precisions)

    def folder(self, source: Source) -> Path:
        """Where a source's files are on this machine, fetched if they have to be.

        Raises:
            SourceError: they cannot be had.
        """
        if source not in self._folders:
            self._folders[source] = local_folder(source, self.located.folder)
        return self._folders[source]

    def checkpoint(self, role: Role, candidate: str) -> Checkpoint:
        """A candidate's checkpoint, with the low-rank weights merged into it; read once."""
        key = (role.group, candidate)
        if key not in self._checkpoints:
            self._checkpoints[key] = self._checkpoint(role, candidate)
        return self._checkpoints[key]

    def _checkpoint(self, role: Role, candidate: str) -> Checkpoint:
        found = self.located.catalog.candidates(role)[candidate]
        loras = found.loras if isinstance(found, TextEncoder | Denoiser) else ()
        merged = tuple((self.folder(lora.source), lora.scale) for lora in loras)
        return Checkpoint(self.folder(found.source), merged)

    def conditioning(self, denoiser: str) -> Conditioning:
        """How a denoiser is told what to draw."""
        checkpoint = self.checkpoint(Role.DENOISER, denoiser)
        return conditioning_of(checkpoint, self.sampling_of(denoiser))

    def encoder_outputs(self, variant: Variant) -> EncoderOutputs:
        """What a text encoder is asked for, by the denoisers it works with.

        Raises:
            CatalogError: two of them ask different things of it.
        """
        heard = {
            parts.denoiser
            for parts in self.located.catalog.mixable()
            if parts.names.get(variant.role) == variant.candidate
            and variant.partner in (None, parts.denoiser)
        }
        families = {family_of(self.checkpoint(Role.DENOISER, name)) for name in sorted(heard)}
        asked = {encoder_outputs(family, variant.role) for family in families}
        if len(asked) != 1:
            raise CatalogError(
                f"text_encoders.{variant.candidate}: denoisers of the families "
                f"{', '.join(sorted(families)) or 'of none'} need different outputs from it; list "
                "it once per family, under another name and with other states"
            )
        return asked.pop()


def check(request: BuildRequest) -> None:
    """Refuse what can be seen to fail before anything is loaded, exported or built.

    Raises:
        CatalogError: a file the catalog names is missing, a size cannot be drawn, or a LoRA has
            weights that no candidate takes.
        SourceError: a checkpoint or a LoRA is damaged, a LoRA does not fit, or a config makes no
            sense.
        InfeasibleError: even the weights and one convolution of the smallest mix do not fit.
        SchedulerError: a denoiser cannot be run with its scheduler.
    """
    check_catalog(request.located)
    _refuse_strangers(request)
    check_loras(request.located.catalog, request.checkpoint, request.folder)
    _refuse_sizes(request)
    _refuse_hopeless(request)
    _refuse_schedulers(request)


def check_catalog(located: LocatedCatalog) -> None:
    """See that every file a catalog names on this machine is there and can be read.

    Raises:
        CatalogError: one is missing, or the real pictures are fewer than the prompts.
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
    weighted += [] if quality.judge is None else [quality.judge]
    for source in weighted:
        if source.path is not None:
            for _ in Checkpoint(local_folder(source, located.folder)).shapes():
                pass
    for key in (quality.calibration, quality.samples):
        located.prompts(key)
    if quality.real_images is not None:
        real_pictures(located, quality.real_images)


def real_pictures(located: LocatedCatalog, sheet: Path) -> NDArray[np.uint8]:
    """The real pictures the prompts stand for, cut from their sheet: uint8 (N, side, side, 3).

    Raises:
        CatalogError: the sheet cannot be read, or holds too few.
    """
    quality, side = located.catalog.quality, located.catalog.image_size
    path, columns = located.path(sheet), quality.real_columns
    count = len(located.prompts(quality.prompts))
    try:
        whole = np.asarray(Image.open(path).convert("RGB"))
    except (OSError, SyntaxError) as cause:
        raise CatalogError(f"{path} cannot be read ({cause}); restore it") from cause
    rows = whole.shape[0] // side
    if whole.shape[1] != columns * side or rows * columns < count:
        raise CatalogError(
            f"{path} is {whole.shape[1]}x{whole.shape[0]}, too small for {count} tiles of "
            f"{side}, {columns} per row; check quality.real_columns"
        )
    tiles = whole[: rows * side].reshape(rows, side, columns, side, 3).swapaxes(1, 2)
    return tiles.reshape(-1, side, side, 3)[:count]


def _refuse_strangers(request: BuildRequest) -> None:
    for parts in request.located.catalog.mixable():
        found = {role: request.checkpoint(role, name) for role, name in parts.names.items()}
        encoders = {role: part for role, part in found.items() if role.encodes_text}
        where = f"{request.located.catalog.name}: {' + '.join(parts.names.values())}"
        bridged = frozenset(parts.bridges)
        denoiser, decoder = found[Role.DENOISER], found[Role.DECODER]
        check_parts_fit(where, encoders, denoiser, decoder, bridged)


def _refuse_sizes(request: BuildRequest) -> None:
    for name in _denoisers(request):
        checkpoint, pixels = (
            request.checkpoint(Role.DENOISER, name),
            request.pixels(Role.DENOISER, name),
        )
        family, config = family_of(checkpoint), checkpoint.config
        step = pixels * latent_step(family, config)
        wrong = [size for size in request.sizes if size[0] % step or size[1] % step]
        if wrong:
            raise CatalogError(
                f"{name} draws pictures whose sides are multiples of {step} pixels, not "
                f"{format_size(wrong[0])}; choose another --size"
            )
        most = most_rows(family, config)
        large = [size for size in request.sizes if most and max(size) > most * pixels]
        if large:
            raise CatalogError(
                f"{name} supports sides of up to {most * pixels} pixels, but "
                f"{format_size(large[0])} is larger; choose another --size"
            )


def _denoisers(request: BuildRequest) -> list[str]:
    """Those that work with something else of the catalog."""
    return list(dict.fromkeys(parts.denoiser for parts in request.located.catalog.mixable()))


def _refuse_schedulers(request: BuildRequest) -> None:
    from sdpack.export.sampler import scheduler_table

    for name in _denoisers(request):
        checkpoint, sampling = request.checkpoint(Role.DENOISER, name), request.sampling_of(name)
        folder, family = request.folder(sampling.scheduler), family_of(checkpoint)
        patch = latent_step(family, checkpoint.config)
        for rows in dict.fromkeys(request.latent_sizes(Role.DENOISER, name)):
            scheduler_table(folder, family, sampling.steps, rows, patch)


def _refuse_hopeless(request: BuildRequest) -> None:
    def least(variant: Variant, placement: Placement) -> Footprint:
        checkpoint = request.checkpoint(variant.role, variant.candidate)
        runtime, rows = request.profile.runtime, (0, 0)
        if not variant.role.encodes_text:
            rows = request.latent_rows(variant.role, variant.candidate)
        return least_footprint(checkpoint, variant, placement, rows, runtime)

    every = mixes(request.located.catalog, request.precisions)
    process = LEAST_PROCESS.get(request.profile.runtime, 0)
    try:
        fit(every, request.placements[-1:], least, request.budget, process)
    except InfeasibleError as error:
        raise InfeasibleError(
            f"{error}; this is a lower bound from the sizes of the checkpoints: the exact need "
            "is known once the graphs are made",
            error.smallest_bytes,
        ) from error
