"""How each layer is stored, so that the total cost is least within a budget of bytes.

Each layer has several options, and each option a size and a cost. The sizes of parts that are
loaded together must not exceed a limit. This is a multiple-choice knapsack problem. HiGHS solves it
exactly as a mixed-integer program (Huangfu and Hall, "Parallelizing the dual revised simplex
method", 2018). Layers that an engine needs in the same precision count as one layer, with the sums
of their sizes and costs.
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

SECONDS = 8.0  # time limit of the solver
GAP = 1e-6  # relative to the cost, which is never known more precisely
BISECTIONS = 200  # at most, for the price of a byte
STEPS = 1e4  # about the largest cost the solver is given: it stops at an absolute gap of 1e-6


@dataclass(frozen=True)
class Option:
    """One way to store a layer.

    Attributes:
        name: the name of its scheme.
        cost: its effect on the output, on one scale for all layers; the costs of layers add up.
    """

    name: str
    bytes: int
    cost: float


@dataclass(frozen=True)
class Choice:
    """A layer, or several that share one precision, and its options.

    Attributes:
        part: the part that the layer belongs to; limits apply to parts.
    """

    name: str
    part: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Limit:
    """The most bytes that these parts may take together."""

    parts: frozenset[str]
    bytes: int


@dataclass(frozen=True)
class Allocation:
    """A solution.

    Attributes:
        options: the option of each choice, in the order of the choices.
        bytes: their sizes, added up.
        gap: how much less the best solution could cost, as a share of the cost; 0 if none.
    """

    options: tuple[Option, ...]
    bytes: int
    cost: float
    gap: float


def tied(name: str, choices: Sequence[Choice]) -> Choice:
    """One choice for several layers of a part that must have the same precision.

    Raises:
        ValueError: the layers belong to several parts, or have no option in common.
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
    """Choose the options with the least total cost within every limit.

    In parts without a limit, each layer gets its cheapest option.

    Raises:
        InfeasibleError: even the smallest options exceed a limit; the message gives both sizes.
        QuantizationError: a cost is not a finite number.
        ValueError: a part has two limits.
    """
    _check_costs(choices)
    parts = [part for limit in limits for part in limit.parts]
    if len(parts) != len(set(parts)):
        raise ValueError("a part has two limits")
    free = frozenset(choice.part for choice in choices) - frozenset(parts)
    chosen: dict[int, Option] = {}
    bound = 0.0
    for limit in (*limits, Limit(free, sys.maxsize)):
        own = {n: choice for n, choice in enumerate(choices) if choice.part in limit.parts}
        _check_feasible(list(own.values()), limit)
        useful = [_undominated(choice.options) for choice in own.values()]
        cheapest, least_cost = _knapsack(useful, limit.bytes)
        chosen.update(zip(own, cheapest, strict=True))
        bound += least_cost
    options = tuple(chosen[number] for number in range(len(choices)))
    cost = float(sum(option.cost for option in options))
    gap = (cost - bound) / cost if cost > 0 else 0.0
    size = sum(option.bytes for option in options)
    return Allocation(options, size, cost, gap if gap > GAP else 0.0)


def _check_costs(choices: Sequence[Choice]) -> None:
    """Check that costs are finite: comparisons would silently accept a NaN."""
    for choice in choices:
        for option in choice.options:
            if not math.isfinite(option.cost):
                raise QuantizationError(
                    f"{choice.name} in {option.name} costs {option.cost}, which is not a finite "
                    "number; check the calibration inputs, or keep the layer as it is"
                )


def _check_feasible(own: Sequence[Choice], limit: Limit) -> None:
    least = sum(min(option.bytes for option in choice.options) for choice in own)
    if least > limit.bytes:
        names = " and ".join(sorted(limit.parts))
        raise InfeasibleError(
            f"the weights of {names} take at least {format_bytes(least)}, but only "
            f"{format_bytes(limit.bytes)} are available; give more memory",
            least,
        )


def _undominated(options: Iterable[Option]) -> list[Option]:
    """The options without those that another option matches or beats in both size and cost."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda o: (o.bytes, o.cost, o.name)):
        if not kept or option.cost < kept[-1].cost:
            kept.append(option)
    return kept


def _knapsack(useful: Sequence[Sequence[Option]], room: int) -> tuple[list[Option], float]:
    """One option of each choice, and a lower bound on the cost of every solution.

    A price per byte at which the budget is nearly balanced gives the bound, and a solution close to
    it. An option that alone raises the bound above the cost of that solution is in no better
    solution. The options that remain make a small program, which is solved exactly.
    """
    price, bound = _best_price(useful, room)
    near = _filled(useful, _cheapest(useful, price), room)
    slack = sum(o.cost for o in near) - bound
    remaining = []
    for options, own in zip(useful, near, strict=True):
        priced = [option.cost + price * option.bytes for option in options]
        most = min(priced) + slack * (1 + 1e-9)
        pairs = zip(options, priced, strict=True)
        remaining.append([o for o, value in pairs if value <= most or o is own])
    undecided = [place for place, options in enumerate(remaining) if len(options) > 1]
    if not undecided or slack <= GAP * abs(bound):
        return near, bound
    decided = [options[0] for options in remaining if len(options) == 1]
    spare = room - sum(option.bytes for option in decided)
    best, least_cost = _program([remaining[place] for place in undecided], spare, slack)
    chosen = [options[0] for options in remaining]
    for place, option in zip(undecided, best or [near[place] for place in undecided], strict=True):
        chosen[place] = option
    if sum(o.cost for o in chosen) > sum(o.cost for o in near):
        chosen = near
    return chosen, max(bound, sum(option.cost for option in decided) + least_cost)


def _cheapest(useful: Sequence[Sequence[Option]], price: float) -> list[Option]:
    """The cheapest option of each choice at a price per byte; among equals, the smaller."""
    return [min(options, key=lambda o: (o.cost + price * o.bytes, o.bytes)) for options in useful]


def _best_price(useful: Sequence[Sequence[Option]], room: int) -> tuple[float, float]:
    """A price per byte at which the cheapest options fit, and the largest bound of all tried.

    The bound is the Lagrangian: the cost and price of the cheapest options, minus the price of the
    room.
    """

    def evaluate(price: float) -> tuple[int, float]:
        cheapest = _cheapest(useful, price)
        used = sum(option.bytes for option in cheapest)
        return used, sum(option.cost for option in cheapest) + price * (used - room)

    used, bound = evaluate(0.0)
    if used <= room:
        return 0.0, bound
    low, high = 0.0, 1e-18
    while evaluate(high)[0] > room:
        low, high = high, high * 16
        if high > 1e30:
            break
    bound = max(bound, evaluate(high)[1])
    for _ in range(BISECTIONS):
        middle = (low * high) ** 0.5 if low > 0 else high / 16
        used, value = evaluate(middle)
        bound = max(bound, value)
        low, high = (middle, high) if used > room else (low, middle)
        if high - low <= 1e-12 * high:
            break
    return high, bound


def _filled(
    useful: Sequence[Sequence[Option]], chosen: Sequence[Option], room: int
) -> list[Option]:
    """The chosen options, improved within the room, largest saving of cost per byte first."""
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
    """The exact solution and a bound on its cost; None if the time limit came first.

    Args:
        scale: costs are divided by it for the solver.
    """
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
            solution = milp(
                costs * STEPS,
                integrality=np.ones(len(flat)),
                bounds=Bounds(0, 1),
                constraints=[
                    LinearConstraint(ones, 1, 1),
                    LinearConstraint(sizes[None, :] / max(spare, 1), -np.inf, 1.0),
                ],
                options={"time_limit": SECONDS, "mip_rel_gap": 0.0},
            )
        dual_bound = solution.mip_dual_bound if solution.mip_dual_bound is not None else 0.0
        if bound == -np.inf:
            bound = sum(least) + float(dual_bound) / STEPS * scale
        if solution.x is None:
            return None, bound
        chosen = [flat[number] for number in np.flatnonzero(solution.x > 0.5)]
        excess = sum(option.bytes for _, option in chosen) - room
        if excess <= 0:
            return [option for _, option in chosen], bound
        spare -= excess  # the solver tolerates an excess of a millionth of the room


@contextmanager
def _silent() -> Iterator[None]:
    """Discard what the solver, which is native code, writes to standard output."""
    sys.stdout.flush()
    stdout = os.dup(1)
    try:
        with Path(os.devnull).open("w") as devnull:
            os.dup2(devnull.fileno(), 1)
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
