from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.documents.catalog_files import builtin_catalogs
from sdpack.domain.licences import (
    CommercialUse,
    LicensedPart,
    commercial_use,
    licence_line,
    terms,
)

ALLOWED = """
apache-2.0 | Apache 2.0 | Apache License, Version 2.0 | MIT | The MIT License | cc-by-4.0
cc0-1.0 | bsd-3-clause | MIT or Apache-2.0 | license:mit | unlicense"""
CONDITIONS = """
openrail++ | OpenRAIL++-M | OpenRAIL | creativeml-openrail-m | CreativeML Open RAIL++-M License
stabilityai-ai-community | Stability AI Community | gemma | nvidia-open-model-license | qwen
llama3.1 | Llama 3.2 Community License Agreement | cc-by-sa-4.0 | cc-by-nd-4.0 | GPL-3.0-or-later
agpl-3.0 | faipl-1.0-sd | playground-v2dot5-community | tencent-hunyuan-community | MIT and gemma"""
FORBIDDEN = """
flux-1-dev-non-commercial-license | FLUX.1 [dev] Non-Commercial | cc-by-nc-4.0 | CC BY-NC-SA 4.0
cc-by-nc-nd-4.0 | qwen-research | sai-nc-community | stabilityai-nc-research-community | nsclv1
NVIDIA NSCL v2-custom | NVIDIA Source Code License | apple-amlr | research only
fair-noncommercial-research-license | Apache-2.0 AND CC-BY-NC-4.0 | apache-2.0, cc-by-nc-4.0"""
UNKNOWN = """
none | other | unknown | not stated by its makers | Stability AI, see its model card | free
mit-ish | MIT, with changes | apache | nvidia | gpl-like | not recorded"""


def names(text: str) -> list[str]:
    return [name.strip() for line in text.strip().splitlines() for name in line.split("|")]


@pytest.mark.parametrize(
    ("text", "use"),
    [
        (ALLOWED, CommercialUse.ALLOWED),
        (CONDITIONS, CommercialUse.CONDITIONS),
        (FORBIDDEN, CommercialUse.FORBIDDEN),
        (UNKNOWN, CommercialUse.UNKNOWN),
    ],
)
def test_names_as_hubs_and_catalogs_write_them(text: str, use: CommercialUse) -> None:
    assert {name: terms(name).use for name in names(text)} == dict.fromkeys(names(text), use)


@pytest.mark.parametrize("name", ["", " ", "/", "-"])
def test_no_name_is_unknown_and_says_to_read_it(name: str) -> None:
    assert terms(name).words == "unknown: read it"


@given(st.text())
def test_only_known_names_count_as_free(name: str) -> None:
    assert terms(name).use is CommercialUse.UNKNOWN or any(letter.isalnum() for letter in name)


@given(st.sampled_from(names(ALLOWED + CONDITIONS + UNKNOWN)))
def test_one_non_commercial_licence_of_several_decides(name: str) -> None:
    assert terms(f"{name}, cc-by-nc-4.0").use is CommercialUse.FORBIDDEN
    assert terms(f"cc-by-nc-4.0 or {name}").use is CommercialUse.FORBIDDEN


def test_the_licences_of_the_built_in_catalogs() -> None:
    """Only the names that say nothing are unknown, and only Flux dev's forbids commercial use."""
    licences = {
        candidate.licence
        for found in builtin_catalogs()
        for group in (found.catalog.text_encoders, found.catalog.denoisers, found.catalog.decoders)
        for candidate in group.values()
    }
    by_use = {use: {name for name in licences if terms(name).use is use} for use in CommercialUse}
    assert by_use[CommercialUse.FORBIDDEN] == {"FLUX.1 [dev] Non-Commercial"}
    assert by_use[CommercialUse.UNKNOWN] == {
        "Stability AI, see its model card",
        "not stated by its makers",
        "see its model card",
    }


TEXT, DENOISER = LicensedPart("text encoder e", "MIT"), LicensedPart("denoiser d", "cc-by-nc-4.0")
DECODER, BRIDGE = LicensedPart("decoder v", "not stated"), LicensedPart("bridge b", "gemma")


def test_the_line_names_the_parts_that_restrict_a_bundle() -> None:
    parts = [TEXT, DENOISER, DECODER, BRIDGE]
    assert commercial_use(parts) is CommercialUse.FORBIDDEN
    assert licence_line(parts) == (
        "Licences: not for commercial use, because of denoiser d (cc-by-nc-4.0); unknown for "
        "decoder v (not stated): read it before commercial use; commercial use under conditions "
        "for bridge b (gemma)."
    )


def test_a_bundle_of_free_parts_says_so_and_one_unknown_part_makes_it_unknown() -> None:
    assert licence_line([TEXT]) == "Licences: every part allows commercial use (MIT)."
    assert commercial_use([TEXT, BRIDGE]) is CommercialUse.CONDITIONS
    assert commercial_use([TEXT, BRIDGE, DECODER]) is CommercialUse.UNKNOWN
    assert commercial_use([]) is CommercialUse.UNKNOWN
    assert licence_line([]) == "Licences: unknown: no part is named."
