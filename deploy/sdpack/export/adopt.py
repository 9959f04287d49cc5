"""A catalog of one model, from the folder or hub repository of a diffusers pipeline."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sdpack.documents.catalog import Catalog, Decoder, Denoiser, TextEncoder
from sdpack.documents.catalog_files import LocatedCatalog, prompts_folder
from sdpack.documents.conditioning import ENCODER_OUTPUTS, Family, encoder_outputs
from sdpack.documents.quality import Quality
from sdpack.documents.sampling import Sampling
from sdpack.documents.source import Source
from sdpack.domain.placement import TEXT_ENCODERS, Role
from sdpack.errors import CatalogError, SourceError
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.families import family_of
from sdpack.export.fitting import check_parts_fit
from sdpack.export.hub_outline import pipeline_files
from sdpack.export.latents import latents_of
from sdpack.export.layers_read import layers_read
from sdpack.export.model_card import stated_licence
from sdpack.export.naming import catalog_name
from sdpack.export.pipeline_index import DENOISER_FOLDERS, read_index
from sdpack.export.single_file.folder import folder_of_file
from sdpack.export.single_file.names import explain_file, is_single_file
from sdpack.export.single_file.options import NO_OPTIONS, FileOptions
from sdpack.export.source import hub_source, is_hub_id

UNKNOWN_LICENCE = "not stated; see where it comes from"
STATES_KIND, LATENTS_KIND = "states", "latents"


@dataclass(frozen=True)
class Usual:
    """Usual settings of a family, from its model cards.

    Attributes:
        latent_side: side of an image, in latent pixels.
        tokens: number of tokens that prompts are padded to, if the tokenizer's limit is higher.
    """

    steps: int
    guidance_scale: float
    latent_side: int
    tokens: Mapping[Role, int]


USUAL: Mapping[Family, Usual] = {
    Family.SD: Usual(25, 7.5, 64, {}),
    Family.SDXL: Usual(25, 5.0, 128, {}),
    Family.SD3: Usual(28, 7.0, 128, {Role.TEXT_ENCODER_3: 256}),
    Family.PIXART: Usual(20, 4.5, 128, {Role.TEXT_ENCODER: 300}),
    Family.FLUX: Usual(28, 3.5, 128, {Role.TEXT_ENCODER_2: 512}),
    Family.CHROMA: Usual(35, 5.0, 128, {Role.TEXT_ENCODER: 512}),
    Family.FLUX2: Usual(50, 4.0, 64, {Role.TEXT_ENCODER: 512}),
    Family.Z_IMAGE: Usual(50, 5.0, 128, {Role.TEXT_ENCODER: 512}),
    Family.SANA: Usual(20, 4.5, 32, {Role.TEXT_ENCODER: 300}),
    Family.LUMINA2: Usual(30, 4.0, 128, {Role.TEXT_ENCODER: 256}),
    Family.QWEN_IMAGE: Usual(50, 4.0, 128, {Role.TEXT_ENCODER: 512}),
    Family.OVIS_IMAGE: Usual(50, 5.0, 128, {Role.TEXT_ENCODER: 256}),
}
DISTILLED_STEPS = 4  # usual steps of distilled models: LCM, Flux schnell, FLUX.2 klein
SPRINT, SPRINT_STEPS = "SanaSprintPipeline", 2
TURBO, TURBO_STEPS = "turbo", 8
ALPHA_TOKENS = {Role.TEXT_ENCODER: 120}  # PixArt Alpha; PixArt Sigma reads 300
SCHNELL_TOKENS = {Role.TEXT_ENCODER_2: 256}


@dataclass(frozen=True)
class Adoption:
    """Settings that a model's files do not contain; None means the family's usual value.

    Attributes:
        steps: number of denoising steps.
        guidance_scale: 1 disables guidance (for Z-Image, 0).
        image_size: side of an image in pixels.
        left_out: roles of text encoders to leave out.
        file: what a single file does not tell.
    """

    steps: int | None = None
    guidance_scale: float | None = None
    image_size: int | None = None
    left_out: frozenset[Role] = frozenset()
    file: FileOptions = NO_OPTIONS


def adopt(
    model: str,
    adoption: Adoption = Adoption(),
    warn: Callable[[str], None] = lambda _: None,
    download: bool = True,
) -> LocatedCatalog:
    """Make a catalog of a model, after checking that its parts fit.

    Without a judge, variants are scored by how close their images are to their own fp32 images.
    A model in a single file is converted the first time.

    Args:
        model: diffusers folder, single file, or name of a hub repository.
        adoption: settings that the model's files do not contain.
        warn: called with a line for each component that is ignored because images do not depend
            on it, and for what was assumed about a single file.
        download: whether missing weights of a hub repository may be fetched. Without them, the
            configs and the headers of the weights are fetched.

    Raises:
        SourceError: the model is missing, is not a diffusers pipeline, or needs a component that is
            not supported.
        CatalogError: its parts do not fit together.
    """
    origin = _origin(model, adoption.file, warn)
    pipeline = _Model(model, origin, adoption, download)
    catalog = pipeline.catalog()
    for line in pipeline.warnings:
        warn(line)
    return catalog


class _Model:
    def __init__(self, model: str, origin: Source, adoption: Adoption, download: bool) -> None:
        self._name = model
        self._adoption = adoption
        self._origin = origin
        files = pipeline_files(origin, download)
        self._folder, self._shapes = files.folder, files.shapes
        self._index = read_index(self._folder)
        self.warnings = [*self._index.warnings(), *self._index.unnamed(self._folder)]
        self._encoders = self._text_encoders()
        self._denoiser_name = self._one_of(DENOISER_FOLDERS)
        self._denoiser = self._checkpoint(self._denoiser_name)
        self._decoder = self._checkpoint("vae")
        self._family = family_of(self._denoiser)
        self._encoders = {
            role: self._without_unread_layers(role, encoder)
            for role, encoder in self._encoders.items()
        }
        self._check_left_out()
        self.warnings += self._assumed()

    def catalog(self) -> LocatedCatalog:
        check_parts_fit(str(self._folder), self._encoders, self._denoiser, self._decoder)
        names = {role: role.value.replace("_", "-") for role in self._encoders}
        catalog = Catalog(
            schema=1,
            name=catalog_name(_without_suffix(self._name)),
            description=f"The parts of {self._name}",
            image_size=self._adoption.image_size or self._image_size(),
            text_encoders={names[role]: self._text_encoder(role) for role in self._encoders},
            denoisers={
                self._denoiser_name: Denoiser(
                    source=self._source(self._denoiser_name),
                    licence=self._licence(self._denoiser_name),
                    latents=LATENTS_KIND,
                    states=tuple(f"{STATES_KIND}-{role.value}" for role in self._encoders),
                    parameters=self._denoiser.parameters,
                )
            },
            decoders={
                "vae": Decoder(
                    source=self._source("vae"),
                    licence=self._licence("vae"),
                    latents=LATENTS_KIND,
                    parameters=self._decoder.parameters,
                )
            },
            sampling=self._sampling(),
            quality=default_quality(),
        )
        return LocatedCatalog(catalog, Path())

    def _text_encoders(self) -> dict[Role, Checkpoint]:
        left_out = self._adoption.left_out
        roles = [
            role for role in TEXT_ENCODERS if self._index.has(role.value) and role not in left_out
        ]
        if not roles:
            raise SourceError(
                f"{self._index.path} names no text encoder, and sdpack draws from texts; give a "
                "complete text-to-image pipeline"
            )
        return {role: self._checkpoint(role.value) for role in roles}

    def _check_left_out(self) -> None:
        """Check that only an optional text encoder is left out: the T5 of Stable Diffusion 3.

        Raises:
            CatalogError: another text encoder would be left out.
        """
        optional = {Role.TEXT_ENCODER_3} if self._family is Family.SD3 else set()
        required = sorted(role.value for role in self._adoption.left_out - optional)
        if required:
            raise CatalogError(
                f"{self._name} needs its {required[0]}; only text_encoder_3 of Stable Diffusion 3 "
                "can be left out"
            )

    def _without_unread_layers(self, role: Role, encoder: Checkpoint) -> Checkpoint:
        if TEXT_ENCODERS.index(role) >= len(ENCODER_OUTPUTS[self._family]):
            return encoder  # refused later
        outputs = encoder_outputs(self._family, role)
        return replace(encoder, layers=layers_read(outputs, 0, encoder.config))

    def _one_of(self, components: tuple[str, ...]) -> str:
        component = next((name for name in components if self._index.has(name)), None)
        if component is None:
            raise SourceError(
                f"{self._index.path} names no {' or '.join(components)}; give a complete pipeline"
            )
        return component

    def _checkpoint(self, component: str) -> Checkpoint:
        checkpoint = Checkpoint(self._folder / component, known_shapes=self._shapes.get(component))
        _ = checkpoint.class_name
        checkpoint.check_readable()
        return checkpoint

    def _licence(self, component: str) -> str:
        """The licence that a component's own model card states, or else the pipeline's."""
        folders = (self._folder / component, self._folder)
        return next(filter(None, map(stated_licence, folders)), UNKNOWN_LICENCE)

    def _source(self, component: str) -> Source:
        folder = self._origin.path
        if folder is not None:
            return Source(path=folder.resolve() / component)
        return self._origin.model_copy(update={"subfolder": component})

    def _text_encoder(self, role: Role) -> TextEncoder:
        suffix = role.value.removeprefix(Role.TEXT_ENCODER.value)
        usual = self._tokens
        return TextEncoder(
            source=self._source(role.value),
            tokenizer=self._source(f"tokenizer{suffix}"),
            licence=self._licence(role.value),
            states=f"{STATES_KIND}-{role.value}",
            tokens=usual.get(role),
            parameters=self._encoders[role].parameters,
        )

    @property
    def _tokens(self) -> Mapping[Role, int]:
        if self._is_schnell:
            return SCHNELL_TOKENS
        if self._index.class_name == "PixArtAlphaPipeline":
            return ALPHA_TOKENS
        return USUAL[self._family].tokens

    @property
    def _is_schnell(self) -> bool:
        config = self._denoiser.config
        return self._family is Family.FLUX and not config.get("guidance_embeds")

    def _sampling(self) -> Sampling:
        usual, adoption = USUAL[self._family], self._adoption
        config, index = self._denoiser.config, self._index.values
        unguided = self._is_schnell or bool(index.get("is_distilled"))
        distilled = unguided or bool(config.get("time_cond_proj_dim"))
        steps = DISTILLED_STEPS if distilled else usual.steps
        scale = 1.0 if unguided else usual.guidance_scale
        if self._index.class_name == SPRINT:
            steps = SPRINT_STEPS
        elif self._is_turbo:
            steps, scale = TURBO_STEPS, 0.0
        return Sampling(
            scheduler=self._source("scheduler"),
            steps=(adoption.steps or steps,),
            guidance_scale=scale if adoption.guidance_scale is None else adoption.guidance_scale,
            distilled=bool(index.get("is_distilled")),
            zero_empty_prompt=bool(
                # diffusers' pipeline defaults to True for SDXL.
                index.get("force_zeros_for_empty_prompt", self._family is Family.SDXL)
            ),
        )

    @property
    def _is_turbo(self) -> bool:
        """Whether a Z-Image is called Turbo; its files do not tell it from the base model."""
        return self._family is Family.Z_IMAGE and TURBO in self._name.lower()

    def _assumed(self) -> list[str]:
        """Return a line on the settings of Z-Image, which its name alone decides."""
        adoption = self._adoption
        if self._family is not Family.Z_IMAGE or adoption.steps is not None:
            return []
        kind = "Z-Image-Turbo" if self._is_turbo else "Z-Image, and not for its Turbo,"
        sampling = self._sampling()
        return [
            f"{self._name} is taken for {kind} by its name: {sampling.most_steps} steps, guidance "
            f"scale {sampling.guidance_scale:g}; if that is wrong, make a catalog with `sdpack "
            "catalog from` and its --steps and --guidance-scale"
        ]

    def _image_size(self) -> int:
        """Return the shorter side, in pixels, of the images that the denoiser was trained for."""
        config = self._denoiser.config
        sample_size = config.get("sample_size")
        sides = sample_size if isinstance(sample_size, list) else [sample_size]
        is_known = all(isinstance(side, int) and side for side in sides) and sides
        side = USUAL[self._family].latent_side
        if is_known and self._family is not Family.FLUX:
            side = min(sides)
        return side * latents_of(self._decoder, self._family).pixels


def _without_suffix(model: str) -> str:
    """Drop the suffix of a single file's name."""
    return str(Path(model).with_suffix("")) if is_single_file(model) else model


def default_quality() -> Quality:
    """Return a quality section with the package's prompts and without a judge."""
    folder = prompts_folder()
    return Quality(
        prompts=folder / "evaluation.jsonl",
        calibration=folder / "calibration.jsonl",
        samples=folder / "samples.jsonl",
    )


def _origin(model: str, options: FileOptions, warn: Callable[[str], None]) -> Source:
    """Return a local folder, or a hub repository, as a source; converts a single file.

    Raises:
        SourceError: it is none of these; names the places that were searched.
        CatalogError: options of single files are given, and it is none.
    """
    path = Path(model).expanduser()
    if path.is_file() and is_single_file(model):
        return Source(path=folder_of_file(path, options, warn))
    if options.given:
        raise CatalogError(
            f"{', '.join(options.given)}: only for a model in a single file, and {model} is not "
            "one; list other parts in a catalog"
        )
    if path.is_dir():
        return Source(path=path.resolve())
    if path.is_file():
        raise SourceError(explain_file(path))
    missing = f"there is no folder {path.absolute()}{_hint(path)}"
    if is_single_file(model):
        raise SourceError(f"{model}: there is no file {path.absolute()}{_hint(path)}; check it")
    if model.startswith((".", "~")) or not is_hub_id(model):
        raise SourceError(
            f"{model}: {missing}, and it is not the name of a hub repository (OWNER/NAME)"
        )
    try:
        return hub_source(model)
    except SourceError as cause:
        raise SourceError(f"{model}: {missing}; looked up on the hub: {cause}") from cause


def _hint(path: Path) -> str:
    """Suggest a neighbour of a missing path with a similar name."""
    folder = path.absolute().parent
    try:
        names = [entry.name for entry in folder.iterdir() if entry.name != path.name]
    except OSError:
        return "" if folder.is_dir() else f" (nor its parent {folder})"
    near = difflib.get_close_matches(path.name, names, n=1)
    return f" (did you mean {path.parent / near[0]}?)" if near else ""
