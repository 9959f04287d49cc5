"""TensorRT plans of one build's graphs, each compiled once, several in parallel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sdpack.domain.placement import Placement
from sdpack.engines import tensorrt_builder
from sdpack.engines.detect import memory_bytes
from sdpack.engines.onnxruntime import default_threads, make_room_for
from sdpack.engines.tensorrt_builder import TENSORRT_PACKAGES
from sdpack.errors import UnsupportedGraphError
from sdpack.pack.context import BuildContext
from sdpack.pack.planning.mix import Variant
from sdpack.pack.variants.shapes import InputShapes, Piece
from sdpack.pack.variants.source_graphs import SourceGraphs
from sdpack.rewrite.onnx_file import MODEL_FILE
from sdpack.store.artifacts import REVISION, Artifact, digest
from sdpack.version import versions

_T = TypeVar("_T")
_R = TypeVar("_R")

FAILURE = "failed compilation"  # kind of rows: why a graph does not compile
MEMORY_SHARE = 2  # compilers may take one in this many parts of the machine's memory
COMPILER_COPIES = 2  # of an fp32 graph in a compiler's memory; one of 3.4 GB took 5.7 GB


@dataclass
class EnginePlans:
    """Compiles graphs for the target, and remembers the ones that the compiler rejects."""

    context: BuildContext
    sources: SourceGraphs
    shapes: InputShapes
    _failed: dict[str, UnsupportedGraphError] = field(default_factory=dict, init=False)

    @property
    def sm(self) -> str:
        """The compute capability that plans are compiled for, as compilers write it."""
        profile = self.context.profile
        return profile.sm

    def target(self, variant: Variant) -> dict[str, Any]:
        """Everything that determines a variant's plan, except its graph and its shapes."""
        return {
            "precision": variant.precision,
            "layers": {name: str(scheme) for name, scheme in variant.schemes},
            "tools": versions(("tensorrt_rtx_cu13",)),
            "compute_capability": self.sm,
            "revision": REVISION,
        }

    def whole(self, variant: Variant) -> Piece:
        """A variant's graph, unsplit."""
        (piece,) = self.shapes.pieces(variant, Placement(), None)
        return piece

    def failures(
        self,
        graphs: Sequence[tuple[Variant, Artifact]],
        done: Callable[[int], None] = lambda _: None,
    ) -> list[UnsupportedGraphError | None]:
        """Why each graph, unsplit, does not compile; None if it does.

        As many compile in parallel as the memory allows. A failure is recorded in the ledger, so
        that no graph is compiled twice.

        Args:
            done: called with the number of graphs that are done.
        """
        ledger = self.context.ledger
        inputs = [self._inputs(*pair, self.whole(pair[0])) for pair in graphs]
        known = [ledger.find(FAILURE, each) for each in inputs]

        def failure(place: int) -> str | None:
            recorded = known[place]
            if recorded is not None:
                return str(recorded["error"])
            variant, graph = graphs[place]
            try:
                self._compiled(variant, graph, self.whole(variant))
            except UnsupportedGraphError as error:
                return str(error)
            return None

        found = self.in_parallel(failure, range(len(graphs)), done)
        for each, error, recorded in zip(inputs, found, known, strict=True):
            if error is not None and recorded is None:
                ledger.record(FAILURE, each, {"error": error})
        return [None if error is None else UnsupportedGraphError(error) for error in found]

    def in_parallel(
        self,
        work: Callable[[_T], _R],
        items: Sequence[_T],
        done: Callable[[int], None] = lambda _: None,
    ) -> list[_R]:
        """The results of work that compiles; as much runs at once as the memory allows.

        Args:
            done: called with the number of items that are done.
        """
        with ThreadPoolExecutor(self._at_once) as pool:
            running = [pool.submit(work, item) for item in items]
            try:
                results = []
                for number, job in enumerate(running, 1):
                    results.append(job.result())
                    done(number)
                return results
            finally:
                pool.shutdown(cancel_futures=True)

    def artifact(self, variant: Variant, graph: Artifact, piece: Piece) -> Artifact:
        """The plan of a piece of a graph.

        Raises:
            UnsupportedGraphError: the compiler rejects the piece; it is compiled at most once.
        """
        ranges = {name: asdict(sizes) for name, sizes in piece.ranges.items()}
        key = digest({"graph": graph.content, "file": piece.file, "ranges": ranges})
        if key not in self._failed:
            try:
                return self._compiled(variant, graph, piece)
            except UnsupportedGraphError as error:
                self._failed[key] = error
        raise self._failed[key]

    @property
    def _at_once(self) -> int:
        """How many compilers may run in parallel: each holds more than one copy of its graph."""
        share = memory_bytes() // MEMORY_SHARE // (COMPILER_COPIES * self.sources.largest_bytes)
        return max(1, min(default_threads(), share))

    def _compiled(self, variant: Variant, graph: Artifact, piece: Piece) -> Artifact:
        context, profile = self.context, self.context.profile
        package = TENSORRT_PACKAGES[profile.runtime]
        form = "" if piece.file == MODEL_FILE else f" ({Path(piece.file).stem})"

        def build(folder: Path) -> None:
            context.say(f"building {variant.full_name}{form} for {profile.sm}")
            make_room_for(self.sources.of(variant).bytes)
            path = graph.path(piece.file)
            tensorrt_builder.build(package, path, folder, piece.ranges, profile.sm)

        return context.store.make("plan", self._inputs(variant, graph, piece), build)

    def _inputs(self, variant: Variant, graph: Artifact, piece: Piece) -> dict[str, Any]:
        """Everything that determines a plan."""
        whole = {} if piece.file == MODEL_FILE else {"piece": piece.file}
        return {
            "graph": graph.content,
            "shapes": {name: asdict(sizes) for name, sizes in piece.ranges.items()},
            **self.target(variant),
            **whole,
        }
