from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sdpack.documents.catalog_files import default_catalog
from sdpack.documents.profile import find_profile
from sdpack.domain.precision import Precision, weight_bits
from sdpack.pack.anytime.likely import LikelyMixes
from sdpack.pack.candidates import Candidates
from sdpack.pack.request import BuildRequest

REQUEST = BuildRequest(find_profile("4gb-gpu"), default_catalog(), Path("unused"))


def likely(request: BuildRequest) -> LikelyMixes:
    return LikelyMixes(Candidates(request))


def test_the_sets_with_more_parameters_come_first() -> None:
    found = likely(REQUEST)
    sets = found.sets()
    assert len(sets) == 18
    assert list(sets[0].names.values()) == ["l", "l", "kl"]
    assert list(sets[-1].names.values()) == ["s", "s", "tiny"]


def test_each_set_comes_in_its_widest_precision_first() -> None:
    found = likely(REQUEST)
    listed = list(found.of(found.sets()[0]))
    precisions = [mix.denoiser.precision for mix in listed]
    assert set(precisions) == set(REQUEST.precisions)
    bits = [weight_bits(precision) for precision in precisions]
    assert bits == sorted(bits, reverse=True)
    assert precisions.index(Precision.W8) < precisions.index(Precision.INT8)


def test_what_cannot_fit_is_not_tried() -> None:
    found = likely(replace(REQUEST, budget_bytes=20 * 2**20))
    largest = found.sets()[0]
    tried = [mix.denoiser.precision for mix in found.of(largest)]
    assert Precision.W4 in tried
    assert len(tried) < len(REQUEST.precisions)


@pytest.mark.parametrize("steps", [None, 8])
def test_steps_are_tried_from_the_largest_number(steps: int | None) -> None:
    located = default_catalog()
    sampling = located.catalog.sampling.model_copy(update={"steps": (4, 16)})
    catalog = located.catalog.model_copy(update={"sampling": sampling})
    request = replace(REQUEST, located=replace(located, catalog=catalog), steps=steps)
    found = likely(request)
    listed = [mix.steps for mix in found.of(found.sets()[0])]
    wanted = [None] if steps else [16, 4]
    assert listed == wanted * len(REQUEST.precisions)
