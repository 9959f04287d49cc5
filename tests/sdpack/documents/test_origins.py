from __future__ import annotations

from sdpack.documents.manifest import Manifest
from sdpack.documents.origins import MergedLora, licensed
from sdpack.domain.licences import CommercialUse, LicensedPart, commercial_use
from sdpack.domain.placement import Role

from benchmarks.example_ledgers import entrant, record
from tests.sdpack.documents.test_bundle import manifest

LORA = {"source": "hub/lora@1", "licence": "cc-by-nc-4.0", "scale": 0.5}
BRIDGE = {"source": "b", "licence": "gemma"}


def with_parts(**changes: dict[str, object]) -> Manifest:
    """A manifest whose parts name their LoRAs, with other values for some parts."""
    parts = {
        role: {**part.model_dump(), "loras": [], **changes.get(role.value, {})}
        for role, part in manifest().parts.items()
    }
    return manifest(parts=parts)


def test_a_bundle_s_parts_its_bridge_and_its_loras_each_have_a_licence() -> None:
    found = with_parts(
        text_encoder={"bridge": BRIDGE}, denoiser={"candidate": "lcm", "loras": [LORA]}
    )
    assert [str(part) for part in found.licensed_parts] == [
        "text encoder s (MIT)",
        "bridge from text encoder s to lcm (gemma)",
        "denoiser lcm (MIT)",
        "LoRA hub/lora@1 of denoiser lcm (cc-by-nc-4.0)",
        "decoder s (MIT)",
    ]
    assert commercial_use(found.licensed_parts) is CommercialUse.FORBIDDEN
    assert Manifest.model_validate_json(found.model_dump_json(by_alias=True)) == found


def test_a_bundle_of_free_parts_without_loras_is_free() -> None:
    assert commercial_use(with_parts().licensed_parts) is CommercialUse.ALLOWED


def test_a_bundle_of_an_older_version_opens_and_its_loras_are_unknown() -> None:
    """It has no `loras`, so it does not say whether there are any."""
    assert "loras" not in manifest().model_dump(exclude_unset=True)["parts"][Role.DENOISER]
    said = [part.name for part in manifest().licensed_parts if part.licence == "not recorded"]
    assert said == [
        "LoRAs of text encoder s, if there are any",
        "LoRAs of denoiser s, if there are any",
    ]
    assert commercial_use(manifest().licensed_parts) is CommercialUse.UNKNOWN


def test_a_record_gives_the_licences_of_each_of_its_mixes() -> None:
    free, bound = entrant("abc", ["w4"] * 3, outcome="won"), entrant("dbc", ["w4"] * 3)
    origin = {"source": "x", "licence": "MIT", "loras": []}
    origins = {
        "text encoder a": origin,
        "text encoder d": origin,
        "bridge from text encoder d to b": BRIDGE,
        "denoiser b": {**origin, "loras": [LORA]},
        "decoder c": {**origin, "loras": None},
    }
    found = record([free, bound], 1, origins=origins)
    lora = LicensedPart("LoRA hub/lora@1 of denoiser b", "cc-by-nc-4.0")
    bridge = LicensedPart("bridge from text encoder d to b", "gemma")
    assert lora in found.licensed_parts(free)
    assert bridge not in found.licensed_parts(free)
    assert {lora, bridge} <= set(found.licensed_parts(bound))


def test_a_record_of_an_older_version_does_not_count_as_free() -> None:
    won = entrant("abc", ["w4"] * 3, outcome="won")
    old = {f"{role} {name}": {"source": "x", "licence": "MIT"} for role, name in (
        ("text encoder", "a"), ("denoiser", "b"), ("decoder", "c")
    )}  # fmt: skip
    for origins in ({}, old):
        found = record([won], 1, origins=origins).licensed_parts(won)
        assert commercial_use(found) is CommercialUse.UNKNOWN


def test_a_part_without_loras_stands_alone() -> None:
    assert licensed("decoder v", "MIT", ()) == [LicensedPart("decoder v", "MIT")]
    (_, lora) = licensed("d", "MIT", (MergedLora(source="l", licence="gemma"),))
    assert lora == LicensedPart("LoRA l of d", "gemma")
