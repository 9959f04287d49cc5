"""`build`: from a profile and a catalog to the bundle of the best mix that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sdpack.documents.bundle import sole_writer
from sdpack.documents.manifest import Manifest
from sdpack.domain.placement import Role
from sdpack.engines.onnxruntime import keep_memory
from sdpack.errors import UnsupportedGraphError
from sdpack.pack.bundling import Bundling
from sdpack.pack.mixed.propose import Proposals
from sdpack.pack.planning.fit import Fitted, fit
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.planning.mix import Mix, Variant, mixes
from sdpack.pack.request import BuildRequest, check
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.pack.selection.selection import Selection, SelectionResult
from sdpack.pack.variants.variant_builder import VariantBuilder
from sdpack.progress import Say
from sdpack.store.artifacts import Store, cache_folder
from sdpack.store.ledger import Ledger


@dataclass(frozen=True)
class BuildResult:
    """A finished build: the race's outcome over the mixes that fit, and the bundle."""

    fitted: tuple[Fitted, ...]
    selected: SelectionResult
    manifest: Manifest

    @property
    def winner(self) -> Fitted:
        return self.fitted[self.selected.race.winner]


def build(
    request: BuildRequest, say: Say = lambda _: None, finish: Callable[[Path], None] | None = None
) -> BuildResult:
    """Build the bundle a request asks for.

    Args:
        say: told what is being done.
        finish: given the folder of the bundle before it takes its place, for what is drawn from it;
            should that fail, the bundle that was there stays.

    Raises:
        InfeasibleError: nothing fits; found out before any export where sizes alone tell.
        SdpackError: anything else that failed, in one line.
    """
    check(request)
    with sole_writer(request.out), opened(request, say) as builder:
        possible = buildable(builder)
        footprints = Footprints(builder)
        mixed = list(Proposals(footprints, possible, request.budget).mixes())
        fitted = fitting(footprints, [*possible, *mixed], request.budget)
        evaluator = MixEvaluator(builder, [*possible, *mixed], fitted, say)
        selected = Selection(evaluator).run()
        manifest = Bundling(evaluator, selected, footprints).write(finish)
        return BuildResult(tuple(fitted), selected, manifest)


@contextmanager
def opened(request: BuildRequest, say: Say = lambda _: None) -> Iterator[VariantBuilder]:
    """The builder of a request, on this user's store and ledger."""
    keep_memory()  # parts are run again and again; what they took is given back between them
    ledger = Ledger(cache_folder() / "ledger.sqlite")
    try:
        yield VariantBuilder(request, Store(cache_folder() / "store"), ledger, say)
    finally:
        ledger.close()


def fitting(footprints: Footprints, possible: Sequence[Mix], budget_bytes: int) -> list[Fitted]:
    """Every mix of `possible` that fits, in its fastest placement.

    Raises:
        InfeasibleError: none fits.
    """
    placements = footprints.builder.request.placements
    return fit(
        possible,
        placements,
        footprints.of,
        budget_bytes,
        footprints.fixed_bytes,
        footprints.size_bytes,
        footprints.least_bytes,
    )


def buildable(builder: VariantBuilder) -> list[Mix]:
    """The mixes of a request all of whose variants the target's compiler takes, each graph once.

    A part without products of matrices is the same in w4 as in w8; it then counts as w8.

    Raises:
        UnsupportedGraphError: there are none.
    """
    every = list(mixes(builder.request.located.catalog, builder.request.precisions))
    variants = list(dict.fromkeys(variant for mix in every for variant in mix.variants))
    builder.prepare(variants)
    failed: dict[Variant, UnsupportedGraphError] = {}
    seen: set[tuple[Role, str, str | None, str]] = set()
    kept: set[Variant] = set()
    for variant in variants:
        try:
            made = builder.made(variant)
        except UnsupportedGraphError as error:
            builder.say(f"left out: {error}")
            failed[variant] = error
            continue
        key = (variant.role, variant.candidate, variant.partner, made.artifact.content)
        if key not in seen:
            seen.add(key)
            kept.add(variant)
    left = [mix for mix in every if kept.issuperset(mix.variants)]
    if not left:
        raise next(iter(failed.values()))
    return left
