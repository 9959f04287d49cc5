"""`build`: from a profile and a catalog to the bundle of the best mix that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sdpack.artifacts import Ledger, Store, cache_folder
from sdpack.bundle import Manifest
from sdpack.errors import EngineError
from sdpack.evaluate.race import Outcome
from sdpack.export.sampler import load_scheduler, sampler_table
from sdpack.pack.bundling import Bundling
from sdpack.pack.contest import Contest
from sdpack.pack.fit import Fitted, fit
from sdpack.pack.mix import Mix, Variant, mixes
from sdpack.pack.order import Order, check
from sdpack.pack.workshop import Workshop
from sdpack.placement import Role

Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """A finished build: the race's outcome over the mixes that fit, and the bundle."""

    fitted: tuple[Fitted, ...]
    outcome: Outcome
    manifest: Manifest

    @property
    def winner(self) -> Fitted:
        return self.fitted[self.outcome.winner]


def build(order: Order, say: Say = lambda _: None) -> Result:
    """Build the bundle an order asks for.

    Args:
        say: told what is being done.

    Raises:
        InfeasibleError: nothing fits; found out before any export where sizes alone tell.
        SdpackError: anything else that failed, in one line.
    """
    check(order)
    with opened(order, say) as workshop:
        fitted = fitting(workshop, order.budget)
        contest = Contest(workshop, fitted, say)
        outcome = contest.race()
        say("writing the bundle")
        manifest = Bundling(contest, outcome).write()
        return Result(tuple(fitted), outcome, manifest)


@contextmanager
def opened(order: Order, say: Say = lambda _: None) -> Iterator[Workshop]:
    """The workshop of an order, on this user's store and ledger."""
    sampling = order.located.catalog.sampling
    sampler = sampler_table(load_scheduler(order.folder(sampling.scheduler)), sampling.steps)
    ledger = Ledger(cache_folder() / "ledger.sqlite")
    try:
        yield Workshop(order, Store(cache_folder() / "store"), ledger, sampler, say)
    finally:
        ledger.close()


def fitting(workshop: Workshop, budget_bytes: int) -> list[Fitted]:
    """Every mix that can be built and fits, in its fastest placement.

    Raises:
        InfeasibleError: none fits.
        EngineError: none can be built.
    """
    order = workshop.order
    every = _buildable(workshop, list(mixes(order.located.catalog, order.precisions)))
    fixed = workshop.fixed_bytes
    return fit(every, order.placements, workshop.footprint, budget_bytes, fixed)


def _buildable(workshop: Workshop, every: Sequence[Mix]) -> list[Mix]:
    """The mixes all of whose variants the target's compiler takes."""
    variants = dict.fromkeys(mix.variant(role) for mix in every for role in Role)
    failed: dict[Variant, EngineError] = {}
    for variant in variants:
        try:
            workshop.made(variant)
        except EngineError as error:
            workshop.say(f"left out: {error}")
            failed[variant] = error
    left = [mix for mix in every if not any(mix.variant(role) in failed for role in Role)]
    if not left:
        raise next(iter(failed.values()))
    return left
