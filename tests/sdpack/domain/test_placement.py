from __future__ import annotations

import pytest
from sdpack.documents.catalog import Catalog
from sdpack.domain.placement import TEXT_ENCODERS, Guidance, Loading, Placement, Role


def test_roles_are_in_the_order_of_work() -> None:
    assert list(Role) == [*TEXT_ENCODERS, Role.DENOISER, Role.DECODER]
    assert [role for role in Role if role.encodes_text] == list(TEXT_ENCODERS)


def test_every_role_s_group_is_a_key_of_catalogs() -> None:
    groups = {role.group for role in Role}
    assert groups == {"text_encoders", "denoisers", "decoders"}
    assert groups <= Catalog.model_fields.keys()


def test_a_role_in_words_has_spaces() -> None:
    assert Role.TEXT_ENCODER_2.words == "text encoder 2"
    assert Role.DENOISER.words == "denoiser"


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        (Placement(), "resident, batched"),
        (Placement(Loading.PHASED, Guidance.SEQUENTIAL, 32), "phased, sequential, tiles of 32"),
    ],
)
def test_a_placement_in_words_names_tiles_only_if_it_has_some(
    placement: Placement, words: str
) -> None:
    assert str(placement) == words
