"""Bundles: what a device runs, and the evidence it was chosen by.

    manifest.json      what this is, where each number was seen, SHA-256 of every other file
    onnx/              portable graphs in the folders optimum's pipelines read: text_encoder, unet,
                       vae_decoder, tokenizer, scheduler, model_index.json
    engines/           TensorRT plans, one a graph, where the profile's runtime is TensorRT
    sampler.json       the scheduler as a table; sampler-20.json for 20 steps, sampler-768x512.json
                       where the schedule depends on a picture's size
    samples.png        the catalog's sample prompts through this mix
    ledger.jsonl       every measurement the choice rests on; `sdpack report` draws from it
    contact.png        the same prompts and noise through this mix and others, a row of each
    report.html        what `report` made of that, charts/ the same as pictures
    verified.json      what `verify` saw on the machine it last ran on

The last two are written later, are not part of what ships, and have no checksum.

A bundle is data: it holds nothing that is executed, and every file that ships is checked against
its checksum before it is used.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from sdpack.documents.conditioning import Conditioning
from sdpack.documents.document import Document
from sdpack.documents.evidence import Evidence
from sdpack.documents.profile import Profile, Size, format_size
from sdpack.domain.placement import Guidance, Loading, Placement, Role
from sdpack.domain.precision import Precision
from sdpack.domain.tiles import Split
from sdpack.errors import BundleError, StoreError
from sdpack.store.artifacts import explain_io, file_sha256, unfinished_name

MANIFEST = "manifest.json"
VERIFIED = "verified.json"
SAMPLES = "samples.png"
LEDGER = "ledger.jsonl"
CONTACT_SHEET = "contact.png"
SHEET_GAP = 4  # pixels of white around each of its pictures
REPORT = "report.html"
CHARTS = "charts"
ONNX = "onnx"
ENGINES = "engines"
WHOLE = ("model", "sliced")  # graphs of a part that is not cut
NEEDED = (Role.TEXT_ENCODER, Role.DENOISER, Role.DECODER)
TOKENIZER = "tokenizer"


class InputSizes(Document):
    """The shapes an engine takes at one input; `best` is what it is tuned for."""

    smallest: tuple[PositiveInt, ...]
    best: tuple[PositiveInt, ...]
    largest: tuple[PositiveInt, ...]


class Foresight(StrEnum):
    """What a predicted peak was put together from."""

    PLAN = "the engines' plans"
    PROBE = "each part measured alone"
    GRAPH = "the graphs"


def portable_name(role: Role, denoiser_class: str) -> str:
    """The folder of a role's portable graph, as optimum's pipelines name it."""
    if role.encodes_text:
        return role.value
    if role is Role.DECODER:
        return "vae_decoder"
    return "unet" if denoiser_class.startswith("UNet") else "transformer"


def tokenizer_name(role: Role) -> str:
    """The folder of a text encoder's tokenizer in a bundle."""
    return f"{ONNX}/" + role.value.replace(Role.TEXT_ENCODER.value, TOKENIZER)


def sampler_name(size: Size | None = None, steps: int | None = None) -> str:
    """Where a sampler table is in a bundle.

    Args:
        size: where the schedule depends on the size, and this is not the usual one.
        steps: where these are not the bundle's own.
    """
    words = ["sampler"]
    if size is not None:
        words.append(format_size(size))
    if steps is not None:
        words.append(str(steps))
    return "-".join(words) + ".json"


def plan_name(role: Role, graph: str) -> str:
    """Where the TensorRT plan of one of a role's graphs is in a bundle."""
    stem = Path(graph).stem
    piece = "" if stem in WHOLE else f"-{stem}"
    return f"{ENGINES}/{role.value}{piece}.plan"


class Origin(Document):
    """Where weights come from, and under which licence."""

    source: str
    licence: str


class Engine(Document):
    """A graph that is loaded as one.

    Attributes:
        graph: its ONNX file, from the bundle's folder.
        plan: its TensorRT plan; None where the profile's runtime needs none, or where it is yet to
            be finished on the device.
        inputs: of each input with a dynamic size, what an engine is built for.
    """

    graph: str
    plan: str | None = None
    inputs: Mapping[str, InputSizes] = {}


class Tiles(Document):
    """A decoder in two graphs, for decoding in tiles; see `sdpack.runtime.tiling`."""

    head: Engine
    tail: Engine
    channels: PositiveInt
    factor: PositiveInt
    halo: NonNegativeInt
    norms: NonNegativeInt
    groups: NonNegativeInt

    @property
    def split(self) -> Split:
        return Split(self.channels, self.factor, self.halo, self.norms, self.groups)


class Part(Document):
    """One part of the mix, as it ships.

    Attributes:
        bridge: the projection fused into a text encoder, if it needs one.
        graph: its portable ONNX file, from the bundle's folder.
        attending: the same graph for ONNX Runtime, its attention one operator, the weights shared;
            None where `graph` is that already.
        sliced: the same graph for TensorRT, its attention computed slice by slice, the weights
            shared; None where `graph` is what is compiled.
        tokens: of a text encoder, how long a text it reads; None for what its tokenizer says.
        layers: how many of its layers are stored in each scheme, those in none as "kept".
        fp32 nodes: nodes that compute in fp32, as fp16 may not hold their numbers.
        refused: layers the compiler would not take in the precision.
        plan, inputs: as an engine's.
        tiles: a decoder's two graphs where it works in tiles; `plan` and `inputs` are empty then.
    """

    candidate: str
    precision: Precision
    tokens: PositiveInt | None = None
    layers: Mapping[str, NonNegativeInt] = {}
    islands: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    source: str
    licence: str
    bridge: Origin | None = None
    parameters: NonNegativeInt
    graph: str
    attending: str | None = None
    sliced: str | None = None
    plan: str | None = None
    inputs: Mapping[str, InputSizes] = {}
    tiles: Tiles | None = None

    @property
    def engines(self) -> tuple[Engine, ...]:
        """What is loaded of it."""
        if self.tiles is not None:
            return self.tiles.head, self.tiles.tail
        return (Engine(graph=self.sliced or self.graph, plan=self.plan, inputs=self.inputs),)

    @property
    def files(self) -> set[str]:
        """The files it names."""
        engines = [name for engine in self.engines for name in (engine.graph, engine.plan)]
        return {name for name in (self.graph, self.attending, *engines) if name}

    def with_plans(self, plans: Mapping[str, str]) -> Part:
        """The part with the plans of its graphs."""
        if self.tiles is None:
            return self.model_copy(update={"plan": plans[self.engines[0].graph]})
        head, tail = (
            engine.model_copy(update={"plan": plans[engine.graph]}) for engine in self.engines
        )
        tiles = self.tiles.model_copy(update={"head": head, "tail": tail})
        return self.model_copy(update={"tiles": tiles})


class MemoryFigures(Document):
    """Peak memory in bytes: predicted at build time, measured where `verify` ran."""

    budget_bytes: PositiveInt
    predicted_bytes: PositiveInt
    predicted_from: Foresight
    weights: Mapping[Role, NonNegativeInt]
    activation_bytes: NonNegativeInt
    activation_role: Role
    fixed_bytes: NonNegativeInt


class SamplingDefaults(Document):
    """How pictures are drawn unless asked otherwise.

    Attributes:
        other_steps: numbers of steps that there are tables for besides; nothing was measured with
            them.
        sizes: heights and widths the bundle was built for; none means the one it draws.
    """

    steps: PositiveInt
    other_steps: tuple[PositiveInt, ...] = ()
    guidance_scale: NonNegativeFloat
    guidance_rescale: NonNegativeFloat = 0.0
    negative_prompt: str
    height: PositiveInt
    width: PositiveInt
    sizes: tuple[tuple[PositiveInt, PositiveInt], ...] = ()
    batch: PositiveInt


class LatentSpace(Document):
    """See `sdpack.runtime.pipeline.Latents`."""

    channels: PositiveInt
    scaling_factor: PositiveFloat
    shift_factor: float
    pixels: PositiveInt


class PlacementFigures(Document):
    """See `sdpack.domain.placement.Placement`."""

    loading: Loading
    guidance: Guidance
    tile: PositiveInt | None

    @classmethod
    def of(cls, placement: Placement) -> PlacementFigures:
        return cls(loading=placement.loading, guidance=placement.guidance, tile=placement.tile)

    def placement(self) -> Placement:
        return Placement(self.loading, self.guidance, self.tile)


class PlanFigures(Document):
    """What a plan takes on the device, by its builder."""

    weight_bytes: int
    activation_bytes: int


class Finished(Document):
    """Where and with what the engines were built that only the device can build."""

    machine: str
    package: str
    version: str
    plans: Mapping[Role, PlanFigures]


class Manifest(Document):
    """What a bundle says of itself; the same inputs give the same manifest.

    Schema 2 records the rule of the choice in `evidence`; bundles of schema 1 are read, too.
    """

    version: Literal[1, 2] = Field(2, alias="schema")
    name: str
    catalog: str
    profile: Profile
    parts: Mapping[Role, Part]
    placement: PlacementFigures
    sampling: SamplingDefaults
    latents: LatentSpace
    conditioning: Conditioning = Conditioning()
    memory: MemoryFigures
    evidence: Evidence
    tools: Mapping[str, str]
    finished: Finished | None = None
    files: Mapping[str, str] = {}

    @field_validator("parts")
    @classmethod
    def _of_every_role(cls, parts: Mapping[Role, Part]) -> Mapping[Role, Part]:
        missing = [role.value for role in NEEDED if role not in parts]
        if missing:
            raise ValueError(f"{', '.join(missing)} is missing")
        return {role: parts[role] for role in Role if role in parts}

    @model_validator(mode="after")
    def _tiles_where_it_is_cut(self) -> Manifest:
        if (self.placement.tile is None) != (self.parts[Role.DECODER].tiles is None):
            raise ValueError("placement.tile and parts.decoder.tiles must be given together")
        return self

    @model_validator(mode="after")
    def _draws_whole_latent_pixels(self) -> Manifest:
        sizes = ((self.sampling.height, self.sampling.width), *self.sampling.sizes)
        for side in (side for size in sizes for side in size):
            if side % self.latents.pixels:
                raise ValueError(f"sampling: {side} is not a multiple of {self.latents.pixels}")
        return self


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle.

    Raises:
        BundleError: there is none, or this version cannot read it.
    """
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Manifest.model_validate(values)
    except OSError as cause:
        raise BundleError(
            f"{folder} is not a bundle: {path} cannot be read ({cause.strerror}); check the path"
        ) from cause
    except ValidationError as cause:
        problem = cause.errors(include_url=False)[0]
        key = ".".join(str(step) for step in problem["loc"])
        raise BundleError(f"{path}: {key}: {problem['msg']}; build the bundle again") from cause
    except ValueError as cause:
        raise BundleError(f"{path} is not valid JSON ({cause}); build the bundle again") from cause


def check_files(folder: Path, manifest: Manifest) -> None:
    """Every file the manifest names, against its checksum.

    Raises:
        BundleError: a file is missing, changed, or named outside the bundle.
    """
    for name, wanted in manifest.files.items():
        path = folder / name
        if "\0" in name or not path.resolve().is_relative_to(folder.resolve()):
            raise BundleError(
                f"{folder / MANIFEST} names {name}, outside the bundle; do not use the bundle"
            )
        if not path.is_file():
            raise BundleError(f"{path} is missing; copy the bundle again")
        if file_sha256(path) != wanted:
            raise BundleError(
                f"{path} has SHA-256 {file_sha256(path)} instead of {wanted}: it was truncated "
                "or changed; copy the bundle again"
            )
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    named = {used for part in manifest.parts.values() for used in part.files}
    for name in sorted({name for name in there if ships(name)} | named):
        if name not in manifest.files:
            raise BundleError(
                f"{folder / MANIFEST}: {name} has no checksum; do not use the bundle, or remove "
                "the file if you put it there"
            )


def ships(name: str) -> bool:
    """Whether a file has a checksum: not so what is written into a finished bundle later."""
    late = {MANIFEST, VERIFIED, REPORT, *map(unfinished_name, (VERIFIED, REPORT))}
    return name not in late and Path(name).parts[0] != CHARTS


def open_bundle(folder: Path) -> Manifest:
    """The manifest of a bundle whose every file is as it was shipped.

    Raises:
        BundleError: it is not whole.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    return manifest


def bundle_files(folder: Path) -> list[Path]:
    """What is read of a bundle: what ships, and what `verify` wrote.

    Of a folder that is not one, a study's for instance, its ledger; of a ledger's file that file.
    """
    if not folder.is_dir():
        return [folder]
    try:
        manifest = read_manifest(folder)
    except BundleError:
        return [folder / MANIFEST, folder / LEDGER, folder / CONTACT_SHEET]
    return [folder / name for name in (MANIFEST, VERIFIED, *manifest.files)]


def write_bundle(
    folder: Path,
    manifest: Manifest,
    fill: Callable[[Path], None],
    finish: Callable[[Path], None] | None = None,
) -> Manifest:
    """Write a bundle whole: `fill` gets an empty folder; checksums and manifest come last.

    `finish` gets the folder once it is a bundle, before it takes its place; what it writes has no
    checksum.

    One that was there is replaced once the new one is complete; should anything fail before, it
    stays as it is. Returns the manifest with its checksums.

    Raises:
        StoreError: the folder cannot be written, or another build is writing it.
    """
    folder = folder.resolve()
    try:
        with sole_writer(folder), _aside(folder) as new:
            fill(new)
            files = {
                path.relative_to(new).as_posix(): file_sha256(path)
                for path in sorted(new.rglob("*"))
                if path.is_file() and ships(path.relative_to(new).as_posix())
            }
            whole = manifest.model_copy(update={"files": files})
            text = json.dumps(whole.model_dump(mode="json", by_alias=True), indent=1)
            (new / MANIFEST).write_text(text + "\n", encoding="utf-8")
            if finish is not None:
                finish(new)
            _replace(folder, new)
    except OSError as cause:
        raise StoreError(explain_io(cause, folder)) from cause
    return whole


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Nobody else builds into this folder meanwhile; may be nested in one process.

    Raises:
        StoreError: another build does, the folder cannot be written, or it holds something else
            than a bundle, which would be lost.
    """
    folder = folder.resolve()
    if not folder.name:
        raise StoreError(f"{folder} cannot be a bundle; give --out a folder of its own")
    try:
        strange = folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir())
    except OSError as cause:
        raise StoreError(explain_io(cause, folder)) from cause
    if strange:
        raise StoreError(
            f"{folder} holds files but no {MANIFEST}; a build would replace them: choose "
            "another --out"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"), is_singleton=True)
        lock.acquire(timeout=0)
    except Timeout as cause:
        raise StoreError(f"another build is writing {folder}; wait for it or use --out") from cause
    except OSError as cause:
        raise StoreError(explain_io(cause, folder)) from cause
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    new = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _replace(folder: Path, new: Path) -> None:
    for path in new.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
