"""What worker processes do for a build.

A task is data: what to make or to draw. Its results are in the store, and in rows of the ledger
that the worker returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sdpack.domain.placement import Placement
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.variants.built_variant import BuiltVariant
from sdpack.workers.jobs import WorkerJob


@dataclass(frozen=True)
class ExportPart:
    """Exports the candidate of a variant in fp32."""

    variant: Variant


@dataclass(frozen=True)
class DrawCalibration:
    """Draws one batch of the images that a variant's candidate is calibrated on."""

    variant: Variant
    place: int


@dataclass(frozen=True)
class Calibrate:
    """Observes the activations of a variant's candidate."""

    variant: Variant


@dataclass(frozen=True)
class MeasureGains:
    """Measures the sensitivity of a share of the layers of a variant's candidate."""

    variant: Variant
    share: int = 0


@dataclass(frozen=True)
class RoundWeights:
    """Rounds the weights of a variant's candidate to all schemes of the request."""

    variant: Variant


@dataclass(frozen=True)
class MakeGraphs:
    """Makes the graphs of several variants of one candidate, and what they still need."""

    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class CompileGraph:
    """Compiles the graph of a variant, to see whether the target's compiler accepts it.

    Attributes:
        keep: names of layers to leave unquantized.
    """

    variant: Variant
    keep: frozenset[str] = frozenset()


@dataclass(frozen=True)
class CompilePieces:
    """Compiles the pieces of a variant in a placement.

    Attributes:
        built: the variant as it ships.
    """

    variant: Variant
    placement: Placement
    built: BuiltVariant


@dataclass(frozen=True)
class MeasureEffects:
    """Measures the effect of each layer of a variant's candidate on images, in every scheme."""

    variant: Variant


@dataclass(frozen=True)
class DrawMixes:
    """Draws and scores mixes on one chunk of prompts.

    Attributes:
        numbers: the numbers of the prompts.
        built: the mixes' variants as they ship. Workers need not look them up, for which they would
            read each graph: a variant's key depends on every layer.
        in_fp32: whether to draw the same parts in fp32 instead, as they were exported.
    """

    mixes: tuple[Mix, ...]
    numbers: tuple[int, ...]
    built: tuple[tuple[Variant, BuiltVariant], ...] = ()
    in_fp32: bool = False


Task = (
    ExportPart
    | DrawCalibration
    | Calibrate
    | MeasureGains
    | RoundWeights
    | MakeGraphs
    | CompileGraph
    | CompilePieces
    | MeasureEffects
    | DrawMixes
)


def by_part(variants: Sequence[Variant]) -> list[tuple[Variant, ...]]:
    """The variants of each candidate, in the order of their first ones."""
    parts: dict[str, list[Variant]] = {}
    for variant in variants:
        parts.setdefault(variant.part_name, []).append(variant)
    return [tuple(part) for part in parts.values()]


def part_jobs(
    doing: str, parts: Sequence[Sequence[Variant]], task: Callable[[Variant], Task]
) -> list[WorkerJob]:
    """A job for each candidate.

    Args:
        doing: what it does, such as "exporting".
        parts: the variants of each candidate; the task is for one of them.
    """
    return [
        WorkerJob(f"{doing} {part[0].part_name}", part[0].part_name, task(part[0]))
        for part in parts
    ]


def graph_jobs(parts: Sequence[Sequence[Variant]]) -> list[WorkerJob]:
    """A job for each candidate, to make the graphs of all its variants."""
    return [
        WorkerJob(f"making {part[0].part_name}", part[0].part_name, MakeGraphs(tuple(part)))
        for part in parts
    ]


def drawing_jobs(
    mixes: Sequence[Mix],
    numbers: Sequence[int],
    built: Callable[[Variant], BuiltVariant] | None = None,
    in_fp32: bool = False,
    on_gpu: bool = False,
) -> Iterator[WorkerJob]:
    """Jobs that draw these mixes; mixes with the same latents are drawn in one job.

    Args:
        built: gives a variant as it ships; not needed for fp32.
        in_fp32: see `DrawMixes`.
        on_gpu: whether a GPU draws.
    """
    groups: dict[tuple[tuple[Variant, ...], int | None], list[Mix]] = {}
    for mix in mixes:
        before_decoder = tuple(v for v in mix.variants if v != mix.decoder)
        groups.setdefault((before_decoder, mix.steps), []).append(mix)
    for latents, group in groups.items():
        doing = f"drawing {len(numbers)} prompts with {group[0]}"
        variants = dict.fromkeys(variant for mix in group for variant in mix.variants)
        ready = tuple((variant, built(variant)) for variant in variants) if built else ()
        task = DrawMixes(tuple(group), tuple(numbers), ready, in_fp32)
        key = repr((latents, in_fp32, tuple(numbers)))
        yield WorkerJob(doing, str(group[0].denoiser), task, on_gpu, key=key)
