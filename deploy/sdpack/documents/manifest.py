"""A bundle's manifest."""

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
from sdpack.documents.document import Document, formerly
from sdpack.documents.evidence import Evidence
from sdpack.documents.origins import MergedLora, Origin, bridge_name, licensed
from sdpack.documents.profile import Profile, Size
from sdpack.domain.input_range import InputRange
from sdpack.domain.latents import LatentSpace
from sdpack.domain.licences import LicensedPart
from sdpack.domain.placement import Placement, Role
from sdpack.domain.precision import Precision
from sdpack.domain.tiles import Split

WHOLE = ("model", "sliced")  # file stems of the graphs of a part that is not split for tiles
NEEDED = (Role.TEXT_ENCODER, Role.DENOISER, Role.DECODER)


class Foresight(StrEnum):
    """The source of a predicted peak."""

    PLAN = "the engines' plans"
    PROBE = "each part measured alone"
    GRAPH = "the graphs"


class Engine(Document):
    """A graph that is loaded as one engine.

    Attributes:
        graph: path of its ONNX file, relative to the bundle.
        plan: path of its TensorRT plan; None if the runtime needs none, or if `sdpack finish` has
            yet to build it on the device.
        inputs: the range of shapes of each input with a dynamic size.
    """

    graph: str
    plan: str | None = None
    inputs: Mapping[str, InputRange] = {}


class Tiles(Document):
    """A decoder split into two graphs, for decoding in tiles; see `sdpack.runtime.tiling`."""

    stem: Engine = formerly("stem", "head")
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
        tokens: maximum number of tokens of a text encoder; None means the tokenizer's.
        layers: number of layers stored in each scheme; "kept" counts unquantized ones.
        fp32_nodes: nodes that compute in fp32, because they could overflow fp16.
        refused: layers that the compiler does not support in this precision.
        bridge: origin of the projection fused into a text encoder, if any.
        loras: LoRAs merged into it; None in bundles of older versions, which do not say.
        graph: path of the portable ONNX file, relative to the bundle.
        fused_attention: the same graph for ONNX Runtime, with fused attention and shared weights;
            None if `graph` serves for this.
        sliced: the same graph for TensorRT, with sliced attention and shared weights; None if
            `graph` is compiled.
        plan, inputs: as in `Engine`.
        tiles: the two graphs of a decoder that works in tiles; `plan` and `inputs` are then empty.
    """

    candidate: str
    precision: Precision
    tokens: PositiveInt | None = None
    layers: Mapping[str, NonNegativeInt] = {}
    fp32_nodes: tuple[str, ...] = formerly("fp32_nodes", "islands", ())
    refused: tuple[str, ...] = ()
    source: str
    licence: str
    bridge: Origin | None = None
    loras: tuple[MergedLora, ...] | None = None
    parameters: NonNegativeInt
    graph: str
    fused_attention: str | None = formerly("fused_attention", "attending", None)
    sliced: str | None = None
    plan: str | None = None
    inputs: Mapping[str, InputRange] = {}
    tiles: Tiles | None = None

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The engines that run this part."""
        if self.tiles is not None:
            return self.tiles.stem, self.tiles.tail
        return (Engine(graph=self.sliced or self.graph, plan=self.plan, inputs=self.inputs),)

    @property
    def files(self) -> set[str]:
        """Paths of all its graphs and plans."""
        engines = [name for engine in self.engines for name in (engine.graph, engine.plan)]
        return {name for name in (self.graph, self.fused_attention, *engines) if name}

    def with_plans(self, plans: Mapping[str, str]) -> Part:
        """Return the part with these plans, given by graph."""
        if self.tiles is None:
            return self.model_copy(update={"plan": plans[self.engines[0].graph]})
        stem, tail = (
            engine.model_copy(update={"plan": plans[engine.graph]}) for engine in self.engines
        )
        tiles = self.tiles.model_copy(update={"stem": stem, "tail": tail})
        return self.model_copy(update={"tiles": tiles})


class MemoryFigures(Document):
    """Predicted peak memory in bytes, and its breakdown."""

    budget_bytes: PositiveInt
    predicted_bytes: PositiveInt
    predicted_from: Foresight
    weights: Mapping[Role, NonNegativeInt]
    activation_bytes: NonNegativeInt
    activation_role: Role
    fixed_bytes: NonNegativeInt


class SamplingDefaults(Document):
    """Default settings for drawing.

    Attributes:
        other_steps: other supported numbers of steps; nothing was measured with them.
        sizes: heights and widths that the bundle was built for; empty means only its default.
        batch: maximum number of images per batch.
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
    """Device memory of a plan, as reported by its builder."""

    weight_bytes: int
    activation_bytes: int


class Finished(Document):
    """Where, and with which package, `sdpack finish` built the engines on the device."""

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
    """The manifest; the same inputs give the same manifest.

    Schema 2 records the rule of the choice in `evidence`. Schema 3 has other names for some keys.
    Bundles of schemas 1 and 2 are read, too.
    """

    version: Literal[1, 2, 3] = Field(3, alias="schema")
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

    @property
    def licensed_parts(self) -> list[LicensedPart]:
        """Everything with a licence of its own: parts, bridges and LoRAs."""
        found: list[LicensedPart] = []
        for role, part in self.parts.items():
            name = f"{role.words} {part.candidate}"
            loras = () if role is Role.DECODER else part.loras  # a decoder takes none
            found += licensed(name, part.licence, loras)
            if part.bridge is not None:
                bridge = bridge_name(name, self.parts[Role.DENOISER].candidate)
                found.append(LicensedPart(bridge, part.bridge.licence))
        return found

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
