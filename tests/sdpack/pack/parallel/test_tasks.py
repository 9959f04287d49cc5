"""Which work becomes a job of its own."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision
from sdpack.pack.parallel.tasks import (
    DrawMixes,
    ExportPart,
    MakeGraphs,
    by_part,
    drawing_jobs,
    graph_jobs,
    part_jobs,
)
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.variants.built_variant import BuiltVariant
from sdpack.store.artifacts import Artifact

PRECISIONS = (Precision.FP16, Precision.W4)


def encoder(name: str, precision: Precision = Precision.FP16) -> Variant:
    return Variant(Role.TEXT_ENCODER, name, precision, partner="m")


def denoiser(precision: Precision) -> Variant:
    return Variant(Role.DENOISER, "m", precision)


def decoder(precision: Precision) -> Variant:
    return Variant(Role.DECODER, "kl", precision)


def test_the_variants_of_a_candidate_are_one_job() -> None:
    variants = [
        encoder("s"),
        denoiser(Precision.FP16),
        encoder("l"),
        denoiser(Precision.W4),
        encoder("s", Precision.W4),
    ]
    parts = by_part(variants)
    assert parts == [
        (encoder("s"), encoder("s", Precision.W4)),
        (denoiser(Precision.FP16), denoiser(Precision.W4)),
        (encoder("l"),),
    ]
    exports, graphs = part_jobs("exporting", parts, ExportPart), graph_jobs(parts)
    assert [job.task for job in exports] == [ExportPart(part[0]) for part in parts]
    assert [job.task for job in graphs] == [MakeGraphs(part) for part in parts]
    assert len({job.group for job in graphs}) == 3


def test_mixes_that_share_latents_are_drawn_together_and_each_once() -> None:
    every = [
        Mix.of(encoder(name), denoiser(first), decoder(second))
        for name, first, second in product("sl", PRECISIONS, PRECISIONS)
    ]

    def built(variant: Variant) -> BuiltVariant:
        artifact = Artifact(Path(str(variant)), "variant", {}, {}, 0)
        return BuiltVariant(artifact, frozenset(), frozenset())

    jobs = list(drawing_jobs(every, range(64, 128), built))
    tasks = [job.task for job in jobs]
    assert all(isinstance(task, DrawMixes) for task in tasks)
    assert [mix for task in tasks for mix in task.mixes] != []
    assert sorted(mix for task in tasks for mix in task.mixes) == sorted(every)
    assert {task.numbers for task in tasks} == {tuple(range(64, 128))}
    for task in tasks:
        assert len({(mix.text_encoder, mix.denoiser) for mix in task.mixes}) == 1
        assert {variant for variant, _ in task.built} == {
            v for mix in task.mixes for v in mix.variants
        }
    # A loaded denoiser serves all jobs of its group.
    assert {job.group for job in jobs} == {"m/fp16", "m/w4"}
