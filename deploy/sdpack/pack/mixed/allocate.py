"""Which layer is stored how, so that a budget of bytes buys the least harm.

Each layer takes one of its options, each option so many bytes at such a cost, and what parts that
are loaded together take must not exceed a limit: a multiple-choice knapsack, solved exactly as a
mixed-integer program by HiGHS (Huangfu and Hall, "Parallelizing the dual revised simplex method",
2018). Layers an engine needs in one precision are one layer here, with the sum of their bytes and
costs.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from sdpack.domain.arrays import Float64Array
from sdpack.errors import InfeasibleError, QuantizationError
from sdpack.units import format_bytes

SECONDS = 8.0
GAP = 1e-6  # of the cost; closer than any cost is known
BISECTIONS = 200
STEPS = 1e4  # the program's costs are at most about that; it stops at gaps of a millionth


@dataclass(frozen=True)
class Option:
    """One way to store a layer.

    Attributes:
        name: of the scheme.
        cost: the harm it does; on one scale for all layers, and added up.
    """

    name: str
    bytes: int
    cost: float


@dataclass(frozen=True)
class Choice:
    """A layer, or several that are tied to one precision, and its options.

    Attributes:
        part: whose layer it is; limits are on parts.
    """

    name: str
    part: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Limit:
    """What these parts may take together, in bytes."""

    parts: frozenset[str]
    bytes: int


@dataclass(frozen=True)
class Allocation:
    """A solution.

    Attributes:
        options: of each choice, in their order.
        bytes: of all of them.
        gap: how much less, as a share of the cost, the best solution could cost; 0: none.
    """

    options: tuple[Option, ...]
    bytes: int
    cost: float
    gap: float


def tied(name: str, choices: Sequence[Choice]) -> Choice:
    """Layers of one part that must have one precision, as one.

    Raises:
        ValueError: they are of several parts, or have no option in common.
    """
    (part,) = {choice.part for choice in choices}
    by_name = [{option.name: option for option in choice.options} for choice in choices]
    common = [n for n in by_name[0] if all(n in options for options in by_name)]
    if not common:
        raise ValueError(f"the layers of {name} share no precision")
    options = tuple(
        Option(n, sum(o[n].bytes for o in by_name), sum(o[n].cost for o in by_name)) for n in common
    )
    return Choice(name, part, options)


def allocate(choices: Sequence[Choice], limits: Sequence[Limit]) -> Allocation:
    """The options with the least cost within every limit.

    Parts without a limit take what costs least.

    Raises:
        InfeasibleError: even the smallest options exceed a limit; says by how much.
        QuantizationError: a cost is not a finite number.
        ValueError: a part has two limits.
    """
    _refuse_broken(choices)
    parts = [part for limit in limits for part in limit.parts]
    if len(parts) != len(set(parts)):
        raise ValueError("a part has two limits")
    free = frozenset(choice.part for choice in choices) - frozenset(parts)
    taken: dict[int, Option] = {}
    bound = 0.0
    for limit in (*limits, Limit(free, sys.maxsize)):
        own = {n: choice for n, choice in enumerate(choices) if choice.part in limit.parts}
        _refuse_infeasible(list(own.values()), limit)
        useful = [_undominated(choice.options) for choice in own.values()]
        found, at_least = _knapsack(useful, limit.bytes)
        taken.update(zip(own, found, strict=True))
        bound += at_least
    chosen = tuple(taken[number] for number in range(len(choices)))
    cost = float(sum(option.cost for option in chosen))
    gap = (cost - bound) / cost if cost > 0 else 0.0
    return Allocation(
        chosen, sum(option.bytes for option in chosen), cost, gap if gap > GAP else 0.0
    )


def _refuse_broken(choices: Sequence[Choice]) -> None:
    """A NaN would pass every comparison of costs."""
    for choice in choices:
        for option in choice.options:
            if not math.isfinite(option.cost):
                raise QuantizationError(
                    f"{choice.name} in {option.name} costs {option.cost}, which is not a finite "
                    "number; check the calibration inputs, or keep the layer as it is"
                )


def _refuse_infeasible(own: Sequence[Choice], limit: Limit) -> None:
    least = sum(min(option.bytes for option in choice.options) for choice in own)
    if least > limit.bytes:
        names = " and ".join(sorted(limit.parts))
        raise InfeasibleError(
            f"the weights of {names} take at least {format_bytes(least)}, but only "
            f"{format_bytes(limit.bytes)} are available; give more memory",
            least,
        )


def _undominated(options: Iterable[Option]) -> list[Option]:
    """Without those that another is no larger and no worse than."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda o: (o.bytes, o.cost, o.name)):
        if not kept or option.cost < kept[-1].cost:
            kept.append(option)
    return kept


def _knapsack(useful: Sequence[Sequence[Option]], room: int) -> tuple[list[Option], float]:
    """One option of each, and a bound below which no solution's cost is.

    A price per byte that nearly balances the budget gives that bound, and a solution near it. An
    option whose price alone lifts the bound beyond that solution is in no better one; what is left
    is a small program.
    """
    price, bound = _best_price(useful, room)
    near = _filled(useful, _cheapest(useful, price), room)
    slack = sum(o.cost for o in near) - bound
    left = []
    for options, own in zip(useful, near, strict=True):
        paid = [option.cost + price * option.bytes for option in options]
        within = min(paid) + slack * (1 + 1e-9)
        left.append([o for o, p in zip(options, paid, strict=True) if p <= within or o is own])
    open_ = [place for place, options in enumerate(left) if len(options) > 1]
    if not open_ or slack <= GAP * abs(bound):
        return near, bound
    fixed = sum(options[0].bytes for options in left if len(options) == 1)
    best, at_least = _program([left[place] for place in open_], room - fixed, slack)
    chosen = [options[0] for options in left]
    for place, option in zip(open_, best or [near[place] for place in open_], strict=True):
        chosen[place] = option
    rest = sum(options[0].cost for options in left if len(options) == 1)
    if sum(o.cost for o in chosen) > sum(o.cost for o in near):
        chosen = near
    return chosen, max(bound, rest + at_least)


def _cheapest(useful: Sequence[Sequence[Option]], price: float) -> list[Option]:
    """What is best where a byte costs so much; of equals the smaller."""
    return [min(options, key=lambda o: (o.cost + price * o.bytes, o.bytes)) for options in useful]


def _best_price(useful: Sequence[Sequence[Option]], room: int) -> tuple[float, float]:
    """A price of a byte at which the cheapest options fit, and the greatest bound of any tried.

    The bound is the Lagrangian: cost and price of the cheapest options, less the price of the room.
    """

    def tried(price: float) -> tuple[int, float]:
        found = _cheapest(useful, price)
        used = sum(option.bytes for option in found)
        return used, sum(option.cost for option in found) + price * (used - room)

    used, bound = tried(0.0)
    if used <= room:
        return 0.0, bound
    low, high = 0.0, 1e-18
    while tried(high)[0] > room:
        low, high = high, high * 16
        if high > 1e30:
            break
    bound = max(bound, tried(high)[1])
    for _ in range(BISECTIONS):
        middle = (low * high) ** 0.5 if low > 0 else high / 16
        used, value = tried(middle)
        bound = max(bound, value)
        low, high = (middle, high) if used > room else (low, middle)
        if high - low <= 1e-12 * high:
            break
    return high, bound


def _filled(
    useful: Sequence[Sequence[Option]], chosen: Sequence[Option], room: int
) -> list[Option]:
    """What is chosen, with exchanges that save the most for their bytes while there is room."""
    filled = list(chosen)
    spare = room - sum(option.bytes for option in filled)
    if spare < 0:
        filled = [min(options, key=lambda o: o.bytes) for options in useful]
        spare = room - sum(option.bytes for option in filled)
    steps = [
        ((own.cost - option.cost) / max(option.bytes - own.bytes, 1), place, option)
        for place, (options, own) in enumerate(zip(useful, filled, strict=True))
        for option in options
        if option.cost < own.cost
    ]
    for _, place, option in sorted(steps, key=lambda step: -step[0]):
        more = option.bytes - filled[place].bytes
        if option.cost < filled[place].cost and more <= spare:
            filled[place] = option
            spare -= more
    return filled


def _program(
    useful: Sequence[Sequence[Option]], room: int, scale: float
) -> tuple[list[Option] | None, float]:
    """The exact solution and a bound on its cost; None if time ran out before there was one."""
    flat = [(place, option) for place, options in enumerate(useful) for option in options]
    owner = np.array([place for place, _ in flat])
    least = [min(option.cost for option in options) for options in useful]
    smallest = [min(option.bytes for option in options) for options in useful]
    costs: Float64Array = np.array([(option.cost - least[place]) / scale for place, option in flat])
    sizes: Float64Array = np.array(
        [float(option.bytes - smallest[place]) for place, option in flat]
    )
    spare, bound = room - sum(smallest), -np.inf
    ones = csr_array((np.ones(len(flat)), (owner, np.arange(len(flat)))))
    while True:
        with _silent():
            found = milp(
                costs * STEPS,
                integrality=np.ones(len(flat)),
                bounds=Bounds(0, 1),
                constraints=[
                    LinearConstraint(ones, 1, 1),
                    LinearConstraint(sizes[None, :] / max(spare, 1), -np.inf, 1.0),
                ],
                options={"time_limit": SECONDS, "mip_rel_gap": 0.0},
            )
        proved = found.mip_dual_bound if found.mip_dual_bound is not None else 0.0
        if bound == -np.inf:
            bound = sum(least) + float(proved) / STEPS * scale
        if found.x is None:
            return None, bound
        chosen = [flat[number] for number in np.flatnonzero(found.x > 0.5)]
        over = sum(option.bytes for _, option in chosen) - room
        if over <= 0:
            return [option for _, option in chosen], bound
        spare -= over  # the solver's tolerance is a millionth of the room


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what the solver prints, past Python, off standard output."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
