"""One ONNX file quantized on its own: no catalog, no device, no pictures.

What a build does to a part, with the inputs its user brings in the place of calibration prompts,
and the graph's outputs in the place of pictures.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sdpack.documents.overwrite import check_spared
from sdpack.domain.precision import Precision, Runtime, computed_in, kept_small, weight_bits
from sdpack.errors import InfeasibleError, InputError, QuantizationError, StoreError
from sdpack.pack.mixed.allocate import Choice, Limit, Option, allocate
from sdpack.pack.single_graph.output_check import Written, check_wanted, outputs_of
from sdpack.pack.single_graph.recipe import Recipe
from sdpack.pack.variants.calibration import GAINS, OBSERVERS
from sdpack.pack.variants.source_graphs import REVISION, versions
from sdpack.pack.variants.variant_builder import KEPT, QUANTIZERS
from sdpack.progress import Say, counted
from sdpack.quantization.archive import archive
from sdpack.quantization.batches import Batches, batches_for
from sdpack.quantization.finite import check_weights
from sdpack.quantization.folding import stored_bytes
from sdpack.quantization.half import beyond_half
from sdpack.quantization.layers import LAYERS_REVISION, Layer, layers
from sdpack.quantization.leftovers import Unquantized, leftovers, listed_words
from sdpack.quantization.observe import Observed, observe, read_observed
from sdpack.quantization.opset import require_observable, require_opset
from sdpack.quantization.rounded_weights import rounder, sampled_errors
from sdpack.quantization.rounding import SAMPLED_ROWS, Rounded
from sdpack.quantization.schemes import (
    ABILITIES,
    MIXABLE,
    UNIFORM,
    Abilities,
    Scheme,
    suited,
)
from sdpack.quantization.sensitivity import PROBING, found_gains, spread, uneven
from sdpack.quantization.variant import (
    make_variant,
    scale_type,
    suited_schemes,
    uniform_schemes,
)
from sdpack.rewrite.onnx_file import files_of, read, write
from sdpack.store.artifacts import Artifact, Store, digest, explain_io, file_sha256

CHECKED = 4  # batches the outputs are compared on


@dataclass(frozen=True)
class QuantizeRequest:
    """What a user asks for.

    Attributes:
        calibration: .npz files, or folders of them.
        keep: patterns of names of layers to leave as they are computed.
        out: the graph to write; its weights go beside it into OUT.data.
    """

    path: Path
    recipe: Recipe
    out: Path
    calibration: tuple[Path, ...] = ()
    runtime: Runtime = Runtime.ONNXRUNTIME_CPU
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class QuantizeResult:
    """What was made.

    Attributes:
        bytes_before, bytes_after: of the graph's files.
        layers: how many weights are stored in each scheme, those in none as KEPT; where only the
            arithmetic changes, how many layers are in its type.
        unquantized: the weights that are KEPT, largest first.
        fp32_nodes: nodes that compute in fp32 for their range.
        errors: by output, the energy of its change as a share of its own; none uncalibrated.
        not_loaded: why the new graph was not loaded to try it; "" where it was.
    """

    out: Path
    bytes_before: int
    bytes_after: int
    layers: Mapping[str, int]
    fp32_nodes: tuple[str, ...]
    errors: Mapping[str, float]
    unquantized: tuple[Unquantized, ...] = ()
    not_loaded: str = ""


def default_out(path: Path, recipe: Recipe) -> Path:
    """Beside the graph, named after the recipe."""
    words = re.sub("[:@]", "-", str(recipe))
    return path.parent / f"{path.stem}.{words}.onnx"


def quantize(task: QuantizeRequest, store: Store, say: Say = lambda _: None) -> QuantizeResult:
    """Make what is asked for; the file is there whole or not at all.

    Calibration, rounding and sensitivity are kept in the store, so that the next recipe for the
    same graph, or the same one after an interruption, starts from them.

    Raises:
        InputError: the recipe, the runtime, a pattern or the calibration inputs are wrong.
        InfeasibleError: fewer bits than the layers take at least.
        GraphError: the graph is missing, damaged or not valid.
        QuantizationError: it is quantized already, too old, has nothing to quantize, or what was
            made gives out what is not finite, or constant.
        EngineError: it does not run.
        StoreError: the output cannot be written.
    """
    _check(task)
    return _Quantizing(task, store, say).run()


def _check(task: QuantizeRequest) -> None:
    recipe, runtime = task.recipe, task.runtime
    if not kept_small(runtime, recipe.precision):
        raise InputError(
            f"{runtime} saves no memory with {recipe}: it would unpack it; "
            "choose another --precision, or another --runtime"
        )
    if recipe.calibrated and not task.calibration:
        raise InputError(f"{recipe} needs real inputs for the graph; give --calibration FILE.npz")
    if os.path.realpath(task.out) == os.path.realpath(task.path):
        raise InputError(f"{task.out} is the graph itself; choose another --out")
    check_spared([*files_of(task.path), *task.calibration], [task.out, Path(f"{task.out}.data")])
    if not task.out.parent.is_dir():
        raise InputError(f"{task.out.parent} is not a folder; create it, or choose another --out")


@dataclass
class _Quantizing:
    task: QuantizeRequest
    store: Store
    say: Say
    _not_loaded: str = field(default="", init=False)

    def run(self) -> QuantizeResult:
        task, path = self.task, self.task.path
        before = files_of(path)
        self.say(f"reading {path}")
        check_weights(path, self.model)
        found = self.layers
        self._check_opset()
        if self.batches is not None:
            _ = self.wanted  # before anything else: it takes the most memory
        if not found and not self.task.recipe.changes_arithmetic_alone:
            raise QuantizationError(
                f"{path} has nothing to quantize: no MatMul, Gemm, Conv or Gather has its own "
                "fp32 weight of 1,024 numbers or more"
                + listed_words("; its weights are ", leftovers(self.model, found))
            )
        schemes = self._schemes()
        had = suited_schemes(path, found, schemes, self.abilities)
        ranges = self.observed.ranges if self.observed is not None else {}
        self.say(f"making {task.recipe}")
        made = make_variant(
            path,
            schemes,
            self.arithmetic,
            self.abilities,
            self._rounded(schemes),
            ranges,
            self.fp32_nodes,
        )
        with _replacing(task.out) as target:
            write(made, target)
            errors = self._errors(target)
            after = files_of(target)
            bytes_after = _bytes(after)
        kept = self._unquantized(had)
        counts = Counter(str(scheme) for _, scheme in had.values())
        if task.recipe.changes_arithmetic_alone:
            counts[str(self.arithmetic)] = len(found) - len(kept)
        counts[KEPT] = len(kept)
        return QuantizeResult(
            task.out,
            _bytes(before),
            bytes_after,
            {word: count for word, count in sorted(counts.items()) if count},
            tuple(sorted(self.fp32_nodes)),
            errors,
            tuple(kept),
            self._not_loaded,
        )

    def _check_opset(self) -> None:
        """See that the opset will do, before anything takes long."""
        scheme = self.task.recipe.scheme
        asked = set(MIXABLE) if self.task.recipe.precision is Precision.MIXED else set()
        if scheme is not None:
            had = {suited(layer, scheme, self.abilities) for layer in self.layers}
            asked = {each for each in had if each is not None}
        require_opset(self.model, asked)
        if self.batches is not None:
            require_observable(self.model)

    def _unquantized(self, had: Mapping[str, tuple[Layer, Scheme]]) -> list[Unquantized]:
        """What keeps its numbers; where only the arithmetic changes, what stays in fp32."""
        arithmetic_alone = self.task.recipe.changes_arithmetic_alone
        found = [] if arithmetic_alone else leftovers(self.model, self.layers)
        for layer in self.layers:
            if arithmetic_alone and not self.fp32_nodes.issuperset(
                str(n.name) for n in layer.nodes
            ):
                continue
            if layer.name not in had:
                why = self._why_kept(layer)
                found.append(Unquantized(str(layer.weight.name), layer.size, why))
        return sorted(found, key=lambda weight: (-weight.numbers, weight.name))

    def _why_kept(self, layer: Layer) -> str:
        if self.task.recipe.changes_arithmetic_alone:
            return f"{layer.name} computes in fp32 for its range"
        if layer.name in self.kept:
            return f"{layer.name}, as --keep asks"
        if layer.feeds_attention and not self.abilities.packed_attention:
            return f"{layer.name} feeds an attention"
        return f"{layer.name} affects the outputs most"

    def _errors(self, target: Path) -> dict[str, float]:
        """How far the made graph is off on some of the calibration inputs; without any, it is
        loaded all the same.
        """
        task = self.task
        made = Written(target, task.path, str(task.recipe), self.arithmetic, task.runtime)
        if self.batches is None:
            self.say("loading the new graph")
            self._not_loaded = made.check_runs()
            return {}
        wanted = self.wanted
        self.say("comparing outputs")
        return made.errors(wanted, spread(self.batches, CHECKED))

    @cached_property
    def model(self) -> ir.Model:
        return read(self.task.path)

    @cached_property
    def layers(self) -> list[Layer]:
        return layers(self.model)

    @cached_property
    def abilities(self) -> Abilities:
        return ABILITIES[self.task.runtime]

    @cached_property
    def arithmetic(self) -> Precision:
        return computed_in(self.task.runtime, self.task.recipe.precision)

    @cached_property
    def batches(self) -> Batches | None:
        if not self.task.calibration:
            return None
        return batches_for(self.model, self.task.calibration)

    @cached_property
    def _content(self) -> str:
        path = self.task.path
        return digest({os.path.relpath(p, path.parent): file_sha256(p) for p in files_of(path)})

    @cached_property
    def _seen(self) -> Artifact | None:
        """What flows through the graph on the calibration inputs."""
        batches = self.batches
        if batches is None:
            return None

        def build(folder: Path) -> None:
            doing = f"calibrating on {len(batches)} batches"
            self.say(doing)
            observe(self.task.path, batches, folder, step=counted(self.say, doing))

        return self.store.make("activations", self._calibrated_with, build)

    @cached_property
    def _calibrated_with(self) -> dict[str, Any]:
        assert self.batches is not None
        return {
            "graph": self._content,
            "batches": [file_sha256(path) for path in self.batches.files],
            "tools": versions(OBSERVERS),
            "revision": [REVISION, LAYERS_REVISION],
        }

    @cached_property
    def wanted(self) -> dict[str, list[NDArray[Any]]]:
        """The graph's outputs on some of the calibration inputs, by name.

        Kept, as the graph in fp32 takes more memory to run than anything here.
        """
        assert self._seen is not None
        inputs = {"activations": self._seen.content, "checked": CHECKED, **self._calibrated_with}

        def build(folder: Path) -> None:
            assert self.batches is not None
            self.say("running the graph")
            outputs = outputs_of(self.task.path, spread(self.batches, CHECKED), emulate=False)
            with archive(folder / "outputs.npz") as put:
                for name, values in outputs.items():
                    for number, value in enumerate(values):
                        put(f"{number}/{name}", value)

        made = self.store.make("outputs alone", inputs, build)
        found: dict[str, list[NDArray[Any]]] = {}
        with np.load(made.path("outputs.npz")) as stored:
            for key in stored.files:
                found.setdefault(key.partition("/")[2], []).append(stored[key])
        check_wanted(self.task.path, found)
        return found

    @cached_property
    def observed(self) -> Observed | None:
        return read_observed(self._seen.folder) if self._seen is not None else None

    @cached_property
    def fp32_nodes(self) -> frozenset[str]:
        if self.arithmetic is not Precision.FP16 or self.observed is None:
            return frozenset()
        return beyond_half(self.model, self.observed.peaks)

    @cached_property
    def kept(self) -> frozenset[str]:
        """Layers the user wants left as they are."""
        names = [layer.name for layer in self.layers]
        kept: set[str] = set()
        for pattern in self.task.keep:
            found = {name for name in names if fnmatchcase(name, pattern)}
            if not found:
                raise InputError(
                    f"no layer matches {pattern!r}; there are {', '.join(names[:3])} and "
                    f"{max(0, len(names) - 3)} more"
                )
            kept |= found
        return frozenset(kept)

    def _schemes(self) -> dict[str, Scheme]:
        recipe = self.task.recipe
        if recipe.precision is Precision.MIXED:
            return self._allocated()
        spared: frozenset[str] = frozenset()
        if recipe.scheme == UNIFORM[Precision.INT8]:
            assert self.observed is not None
            spared = uneven(self.observed.noise, self.gains)
        return uniform_schemes(self.layers, recipe.scheme, spared, self.kept)

    def _rounded(self, schemes: Mapping[str, Scheme]) -> Callable[[Layer, Scheme], Rounded]:
        """Rounds layers as they are written."""
        step = counted(self.say, "rounding layers")
        begun: dict[str, None] = {}

        def tell(name: str) -> None:
            begun[name] = None
            step(len(begun) - 1, len(schemes))

        return rounder(self.observed, scale_type(self.arithmetic), tell)

    def _inputs(self) -> dict[str, Any]:
        """What is found out about layers depends on that."""
        assert self._seen is not None
        return {
            "graph": self._content,
            "observed": self._seen.content,
            "scales": str(scale_type(self.arithmetic)),
            "abilities": asdict(self.abilities),
            "tools": versions(QUANTIZERS),
            "revision": [REVISION, LAYERS_REVISION],
        }

    def _allocated(self) -> dict[str, Scheme]:
        """The schemes that change the graph's outputs least within the bits there are."""
        gains, errors = self.gains, self._found_errors()
        wide = weight_bits(self.arithmetic) // 8
        by_name = {str(scheme): scheme for scheme in MIXABLE}
        choices = []
        for layer in self.layers:
            kept = layer.size * min(wide, stored_bytes(layer.weight))
            options = [Option(KEPT, kept, 0.0)]
            for name, scheme in by_name.items():
                had = suited(layer, scheme, self.abilities)
                if had is None or layer.name in self.kept or layer.name not in gains:
                    continue
                cost = gains[layer.name] * errors[layer.name][str(had)]
                options.append(Option(name, had.bytes_of(layer, wide), cost))
            choices.append(Choice(layer.name, "graph", tuple(options)))
        numbers = sum(layer.size for layer in self.layers)
        limit = math.floor(self.task.recipe.bits * numbers / 8)
        try:
            found = allocate(choices, [Limit(frozenset({"graph"}), limit)])
        except InfeasibleError as cause:
            least = math.ceil(800 * cause.smallest_bytes / numbers) / 100
            raise InfeasibleError(
                f"{self.task.path}: its layers take at least {least} bits per weight, scales "
                f"and unquantized layers included, but {self.task.recipe} allows "
                f"{self.task.recipe.bits:g}",
                cause.smallest_bytes,
            ) from cause
        chosen = zip(choices, found.options, strict=True)
        return {c.name: by_name[o.name] for c, o in chosen if o.name != KEPT}

    @cached_property
    def gains(self) -> dict[str, float]:
        """What share of each layer's error comes out of the graph."""

        def build(folder: Path) -> None:
            assert self.observed is not None
            assert self.batches is not None
            step = counted(self.say, "measuring the sensitivity of layers")
            with self.store.scratch() as scratch:
                found = found_gains(self.task.path, self.observed, self.batches, scratch, step)
            (folder / GAINS).write_text(json.dumps(found, indent=1))

        assert self._seen is not None
        inputs = {**self._calibrated_with, "observed": self._seen.content, "probing": PROBING}
        made = self.store.make("gains", inputs, build)
        return dict(json.loads(made.path(GAINS).read_text()))

    def _found_errors(self) -> dict[str, dict[str, float]]:
        """What each scheme would cost each layer."""

        def build(folder: Path) -> None:
            step = counted(self.say, "measuring the rounding error of layers")
            found = {}
            for place, layer in enumerate(self.layers):
                step(place, len(self.layers))
                had = {suited(layer, scheme, self.abilities) for scheme in MIXABLE}
                asked = sorted(scheme for scheme in had if scheme is not None)
                scales = scale_type(self.arithmetic)
                seen = sampled_errors(layer, asked, self.observed, scales)
                found[layer.name] = {str(scheme): error for scheme, error in seen.items()}
            (folder / "errors.json").write_text(json.dumps(found, indent=1))

        schemes = [str(scheme) for scheme in MIXABLE]
        inputs = {**self._inputs(), "schemes": schemes, "rows": SAMPLED_ROWS}
        made = self.store.make("errors alone", inputs, build)
        return dict(json.loads(made.path("errors.json").read_text()))


def _bytes(files: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in files)


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """Where to write the graph; what lies at `out` is replaced once it is whole."""
    try:
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    except OSError as cause:
        raise StoreError(explain_io(cause, out.parent)) from cause
    try:
        target = folder / out.name
        yield target
        # An old graph never stands beside new weights.
        out.unlink(missing_ok=True)
        for name in (f"{out.name}.data", out.name):
            if (folder / name).exists():
                (folder / name).replace(out.parent / name)
    except OSError as cause:
        raise StoreError(explain_io(cause, out)) from cause
    finally:
        shutil.rmtree(folder, ignore_errors=True)
