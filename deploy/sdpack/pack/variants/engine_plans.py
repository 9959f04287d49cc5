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

    def failure(self, variant: Variant, graph: Artifact) -> UnsupportedGraphError | None:
        """Why a graph, unsplit, does not compile; None if it does. It is compiled at most once."""
        if graph.content not in self._failed:
            try:
                self._compiled(variant, graph, self.whole(variant))
            except UnsupportedGraphError as error:
                self._failed[graph.content] = error
        return self._failed.get(graph.content)

    def failures(
        self,
        graphs: Sequence[tuple[Variant, Artifact]],
        done: Callable[[int], None] = lambda _: None,
    ) -> list[UnsupportedGraphError | None]:
        """The `failure` of each graph; as many compile in parallel as the memory allows.

        Args:
            done: called with the number of graphs that are done.
        """
        return self.in_parallel(lambda pair: self.failure(*pair), graphs, done)

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
        inputs = {
            "graph": graph.content,
            "shapes": {name: asdict(sizes) for name, sizes in piece.ranges.items()},
            **self.target(variant),
        }
        form = ""
        if piece.file != MODEL_FILE:
            inputs["piece"] = piece.file
            form = f" ({Path(piece.file).stem})"

        def build(folder: Path) -> None:
            context.say(f"building {variant.full_name}{form} for {profile.sm}")
            make_room_for(self.sources.of(variant).bytes)
            path = graph.path(piece.file)
            tensorrt_builder.build(package, path, folder, piece.ranges, profile.sm)

        return context.store.make("plan", inputs, build)
