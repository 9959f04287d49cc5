"""How much each category of prompts counts in the score of a mix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sdpack.errors import InputError

EXAMPLE = "text=2,count=0"


def parse_weights(text: str) -> dict[str, float]:
    """Parse weights such as "text=2,count=0", by the names that are given.

    Raises:
        InputError: a weight has no name, is named twice, or is not a number of at least 0.
    """
    found: dict[str, float] = {}
    for item in text.split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not name or not equals:
            raise InputError(f"--weigh: {item!r} is not a name and a weight; write {EXAMPLE}")
        if name in found:
            raise InputError(f"--weigh names {name} twice; give it one weight")
        found[name] = _weight(name, value)
    return found


def _weight(name: str, value: object) -> float:
    try:
        weight = float(str(value))
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise InputError(f"--weigh: the weight of {name} is {value!r}; give a number of at least 0")
    return weight


def full_names(weights: Mapping[str, float], categories: Sequence[str]) -> dict[str, float]:
    """Return weights by the names of categories, which may be given in part, such as "text".

    Raises:
        InputError: there are no categories; a name is of none or of several; or all weights are 0.
    """
    known = list(dict.fromkeys(name for name in categories if name))
    if not weights:
        return {}
    if not known:
        raise InputError("--weigh: the prompts of this catalog have no categories; leave it out")
    found: dict[str, float] = {}
    for name, weight in weights.items():
        meant = [name] if name in known else [each for each in known if name in each]
        if len(meant) != 1:
            what = "several categories" if meant else "no category"
            raise InputError(f"--weigh: {name} is {what}; the categories are {', '.join(known)}")
        if meant[0] in found:
            raise InputError(f"--weigh names {meant[0]} twice; give it one weight")
        found[meant[0]] = _weight(name, weight)
    if all(categories) and not any(found.get(name, 1.0) for name in known):
        raise InputError("--weigh: every category has the weight 0; leave one above 0")
    return found
