"""What worker processes do for a build.

A task is data: what to make or to draw. Its results are in the store, and in rows of the ledger
that the worker returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.variants.variant_builder import BuiltVariant
from sdpack.workers.pool import WorkerJob


@dataclass(frozen=True)
class ExportPart:
    """Exports the candidate of a variant in fp32."""

    variant: Variant


@dataclass(frozen=True)
class MakeGraphs:
    """Makes the graphs of several variants of one candidate, and everything they need."""

    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class DrawMixes:
    """Draws and scores mixes on one chunk of prompts.

    Attributes:
        numbers: the numbers of the prompts.
        built: the mixes' variants as they ship. Workers need not look them up, for which they would
            read each graph: a variant's key depends on every layer.
    """

    mixes: tuple[Mix, ...]
    numbers: tuple[int, ...]
    built: tuple[tuple[Variant, BuiltVariant], ...] = ()


Task = ExportPart | MakeGraphs | DrawMixes


def by_part(variants: Sequence[Variant]) -> list[tuple[Variant, ...]]:
    """The variants of each candidate, in the order of their first ones."""
    parts: dict[str, list[Variant]] = {}
    for variant in variants:
        parts.setdefault(variant.part_name, []).append(variant)
    return [tuple(part) for part in parts.values()]


def export_jobs(parts: Sequence[Sequence[Variant]]) -> list[WorkerJob]:
    """A job for each candidate to export."""
    return [
        WorkerJob(f"exporting {part[0].part_name}", part[0].part_name, ExportPart(part[0]))
        for part in parts
    ]


def graph_jobs(parts: Sequence[Sequence[Variant]]) -> list[WorkerJob]:
    """A job for each candidate, to make the graphs of all its variants."""
    return [
        WorkerJob(f"making {part[0].part_name}", part[0].part_name, MakeGraphs(tuple(part)))
        for part in parts
    ]


def drawing_jobs(
    mixes: Sequence[Mix], numbers: Sequence[int], built: Callable[[Variant], BuiltVariant]
) -> Iterator[WorkerJob]:
    """Jobs that draw these mixes; mixes with the same latents are drawn in one job.

    Args:
        built: gives a variant as it ships.
    """
    groups: dict[tuple[tuple[Variant, ...], int | None], list[Mix]] = {}
    for mix in mixes:
        before_decoder = tuple(v for v in mix.variants if v != mix.decoder)
        groups.setdefault((before_decoder, mix.steps), []).append(mix)
    for group in groups.values():
        doing = f"drawing {len(numbers)} prompts with {group[0]}"
        variants = dict.fromkeys(variant for mix in group for variant in mix.variants)
        ready = tuple((variant, built(variant)) for variant in variants)
        task = DrawMixes(tuple(group), tuple(numbers), ready)
        yield WorkerJob(doing, str(group[0].denoiser), task)
