"""What a bundle's manifest says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from sdpack.documents.conditioning import Conditioning
from sdpack.documents.document import Document
from sdpack.documents.evidence import Evidence
from sdpack.documents.profile import Profile, Size
from sdpack.domain.input_range import InputRange
from sdpack.domain.latents import LatentSpace
from sdpack.domain.placement import Placement, Role
from sdpack.domain.precision import Precision
from sdpack.domain.tiles import Split

WHOLE = ("model", "sliced")  # graphs of a part that is not cut
NEEDED = (Role.TEXT_ENCODER, Role.DENOISER, Role.DECODER)


class Foresight(StrEnum):
    """What a predicted peak was put together from."""

    PLAN = "the engines' plans"
    PROBE = "each part measured alone"
    GRAPH = "the graphs"


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
    inputs: Mapping[str, InputRange] = {}


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
        islands: nodes that compute in fp32, as fp16 may not hold their numbers.
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
    inputs: Mapping[str, InputRange] = {}
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

    @property
    def supported_sizes(self) -> tuple[Size, ...]:
        """Heights and widths the bundle draws, the default first."""
        return tuple(dict.fromkeys(((self.height, self.width), *self.sizes)))

    @property
    def supported_steps(self) -> list[int]:
        """Numbers of steps the bundle has sampler tables for, ascending."""
        return sorted({self.steps, *self.other_steps})


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


def _with_all_fields(given: Any) -> Any:
    """Rejects a stored placement that relies on the defaults of `Placement`."""
    if isinstance(given, Mapping):
        missing = [field.name for field in fields(Placement) if field.name not in given]
        if missing:
            raise ValueError(f"{', '.join(missing)} is missing")
    return given


StoredPlacement = Annotated[Placement, BeforeValidator(_with_all_fields)]


class Manifest(Document):
    """What a bundle says of itself; the same inputs give the same manifest.

    Schema 2 records the rule of the choice in `evidence`; bundles of schema 1 are read, too.
    """

    version: Literal[1, 2] = Field(2, alias="schema")
    name: str
    catalog: str
    profile: Profile
    parts: Mapping[Role, Part]
    placement: StoredPlacement
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
        for side in (side for size in self.sampling.supported_sizes for side in size):
            if side % self.latents.pixels:
                raise ValueError(f"sampling: {side} is not a multiple of {self.latents.pixels}")
        return self
