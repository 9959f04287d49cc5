"""Which graphs are compiled, where, and how often; the compiler is a function here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sdpack.domain.placement import Placement, Role
from sdpack.domain.precision import Precision, Runtime
from sdpack.engines import tensorrt_builder
from sdpack.errors import UnsupportedGraphError
from sdpack.pack.parallel.tasks import CompileGraph, CompilePieces
from sdpack.pack.planning.mix import Variant
from sdpack.pack.variants.compiler_trials import CompilerTrials
from sdpack.pack.variants.engine_plans import EnginePlans
from sdpack.pack.variants.shapes import Piece
from sdpack.pack.variants.variant_pieces import VariantPieces
from sdpack.rewrite.onnx_file import MODEL_FILE
from sdpack.store.artifacts import Artifact, Store
from sdpack.store.ledger import Ledger
from sdpack.workers.jobs import WorkerJob

LAYERS = [f"layer {number}" for number in range(8)]
BAD = {"layer 3"}


def variant(precision: Precision = Precision.INT8) -> Variant:
    return Variant(Role.DENOISER, "m", precision)


class Build:
    """A build whose compiler rejects graphs in which a layer of `BAD` is quantized.

    A graph is a file with the names of its quantized layers.
    """

    def __init__(self, folder: Path, on_cluster: bool = False) -> None:
        self.store = Store(folder / "store")
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.said: list[str] = []
        self.dispatched: list[WorkerJob] = []
        self.compiled: list[frozenset[str]] = []
        context = SimpleNamespace(
            store=self.store,
            ledger=self.ledger,
            say=self.said.append,
            on_cluster=on_cluster,
            prepare=self.prepare,
            runtime=Runtime.TENSORRT_RTX,
            profile=SimpleNamespace(sm="SM89", runtime=Runtime.TENSORRT_RTX),
        )
        source = SimpleNamespace(content="source", bytes=1)
        sources = SimpleNamespace(largest_bytes=2**30, of=lambda _: source, model=lambda _: None)
        piece = Piece(MODEL_FILE, {}, {})
        shapes = SimpleNamespace(pieces=lambda *_: (piece,))
        graphs = SimpleNamespace(
            of=self.graph,
            uneven_inputs=lambda _: frozenset(),
            schemes=lambda _, keep: {name: None for name in LAYERS if name not in keep},
        )
        self.plans = EnginePlans(cast(Any, context), cast(Any, sources), cast(Any, shapes))
        self.trials = CompilerTrials(
            cast(Any, context), cast(Any, sources), cast(Any, graphs), self.plans
        )
        # There are no graphs to learn from.
        self.trials._hints = cast(
            Any, SimpleNamespace(guess=lambda *_: frozenset(), learn=lambda *_: None)
        )

    def graph(self, of: Variant, keep: frozenset[str] = frozenset()) -> Artifact:
        names = sorted(set(LAYERS) - keep)

        def build(folder: Path) -> None:
            (folder / MODEL_FILE).write_text("\n".join(names))

        return self.store.make("variant", {"of": str(of), "layers": names}, build)

    def prepare(self, jobs: Sequence[WorkerJob], step: Any = None) -> None:
        self.dispatched += jobs

    def compile(self, package: str, path: Path, folder: Path, ranges: Mapping[str, Any], sm: str):  # type: ignore[no-untyped-def]
        quantized = frozenset(path.read_text().split("\n"))
        self.compiled.append(quantized)
        if quantized & BAD:
            raise UnsupportedGraphError(f"{path}: cannot build the engine")
        (folder / "model.plan").write_text("plan")


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    made = Build(tmp_path)
    monkeypatch.setattr(tensorrt_builder, "build", made.compile)
    yield made
    made.ledger.close()


def test_no_graph_is_compiled_twice_even_by_the_next_build(build: Build, tmp_path: Path) -> None:
    assert build.trials.refused(variant()) == BAD
    assert len(build.compiled) == len(set(build.compiled))
    tried = len(build.compiled)
    build.ledger._database.execute("DELETE FROM measurement WHERE kind = 'refused layers'")
    again = CompilerTrials(
        build.trials.context, build.trials.sources, build.trials.variants, build.plans
    )
    again._hints = build.trials._hints
    assert again.refused(variant()) == BAD, "as after a build that was killed in its search"
    assert len(build.compiled) == tried


def test_a_variant_that_never_compiles_says_what_the_compiler_said(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.sdpack.pack.variants.test_compiler_trials.BAD", set(LAYERS) | {""})
    with pytest.raises(UnsupportedGraphError, match="cannot build the engine"):
        build.trials.refused(variant())


def test_a_cluster_compiles_variants_and_the_halves_of_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Build(tmp_path, on_cluster=True)
    monkeypatch.setattr(tensorrt_builder, "build", build.compile)
    variants = [variant(Precision.W8), variant()]
    build.trials.prepare(variants)
    assert [job.task for job in build.dispatched] == [CompileGraph(each) for each in variants]
    assert {job.group for job in build.dispatched} == {variant().part_name}
    build.dispatched.clear()
    assert build.trials.refused(variant()) == BAD
    kept = [job.task.keep for job in build.dispatched]
    halves = [frozenset(LAYERS[4:]), frozenset(LAYERS[:4])]
    assert kept[:2] == halves
    # What another machine has compiled, this one only finds.
    tried = len(build.compiled)
    for job in build.dispatched:
        build.trials.compile(job.task.variant, job.task.keep)
    assert len(build.compiled) == tried
    build.ledger.close()


def test_a_cluster_compiles_the_pieces_of_several_variants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Build(tmp_path, on_cluster=True)
    monkeypatch.setattr(tensorrt_builder, "build", build.compile)
    ready = {
        each: SimpleNamespace(artifact=build.graph(each, frozenset(BAD)))
        for each in (
            variant(Precision.W8),
            variant(),
        )
    }
    variants = SimpleNamespace(built=ready.__getitem__)
    pieces = VariantPieces(cast(Any, variants), build.plans, Runtime.TENSORRT_RTX)
    pieces.prepare(list(ready), Placement())
    assert [job.task for job in build.dispatched] == [
        CompilePieces(each, Placement(), cast(Any, built)) for each, built in ready.items()
    ]
    assert len(build.compiled) == 2
    build.ledger.close()
