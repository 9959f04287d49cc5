from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from sdpack.documents.manifest import NEEDED, Engine, Manifest, Part, StoredPlacement
from sdpack.domain.placement import Guidance, Loading, Placement, Role
from sdpack.domain.tiles import Split

from tests.sdpack.documents.test_bundle import manifest

PART = manifest().parts[Role.DENOISER]
TILES = {
    "head": {"graph": "onnx/vae_decoder/head.onnx"},
    "tail": {"graph": "onnx/vae_decoder/tail.onnx"},
    "channels": 4,
    "factor": 2,
    "halo": 3,
    "norms": 2,
    "groups": 8,
}


def changed(**changes: Any) -> Part:
    return Part.model_validate({**PART.model_dump(), **changes})


def test_a_manifest_survives_json() -> None:
    made = manifest()
    assert Manifest.model_validate_json(made.model_dump_json(by_alias=True)) == made


def test_parts_come_in_the_order_of_work() -> None:
    parts = {role: manifest().parts[role].model_dump() for role in reversed(NEEDED)}
    assert list(manifest(parts=parts).parts) == list(NEEDED)


@pytest.mark.parametrize("role", NEEDED)
def test_a_part_of_every_needed_role_is_required(role: Role) -> None:
    parts = {other: PART.model_dump() for other in NEEDED if other is not role}
    with pytest.raises(ValidationError, match=f"{role} is missing"):
        manifest(parts=parts)


@pytest.mark.parametrize("changes", [{"height": 65}, {"sizes": [(64, 64), (60, 64)]}])
def test_every_size_is_of_whole_latent_pixels(changes: dict[str, Any]) -> None:
    sampling = {**manifest().sampling.model_dump(), **changes}
    with pytest.raises(ValidationError, match=r"(65|60) is not a multiple of 8"):
        manifest(sampling=sampling)


def test_a_whole_part_is_one_engine_of_what_is_compiled() -> None:
    assert PART.engines == (Engine(graph="onnx/unet/model.onnx"),)
    sliced = changed(
        sliced="onnx/unet/sliced.onnx", fused_attention="onnx/unet/fused_attention.onnx"
    )
    assert [engine.graph for engine in sliced.engines] == ["onnx/unet/sliced.onnx"]
    assert sliced.files == {
        f"onnx/unet/{name}.onnx" for name in ("model", "sliced", "fused_attention")
    }


def test_a_decoder_in_tiles_is_an_engine_for_each_graph() -> None:
    made = changed(graph="onnx/vae_decoder/model.onnx", tiles=TILES)
    head, tail = (f"onnx/vae_decoder/{name}.onnx" for name in ("head", "tail"))
    assert [engine.graph for engine in made.engines] == [head, tail]
    assert made.tiles is not None
    assert made.tiles.split == Split(channels=4, factor=2, halo=3, norms=2, groups=8)
    planned = made.with_plans({head: "engines/a.plan", tail: "engines/b.plan"})
    assert [engine.plan for engine in planned.engines] == ["engines/a.plan", "engines/b.plan"]
    assert planned.files == made.files | {"engines/a.plan", "engines/b.plan"}


def test_plans_go_to_the_graph_they_were_built_from() -> None:
    planned = PART.with_plans({PART.graph: "engines/denoiser.plan"})
    assert planned.plan == planned.engines[0].plan == "engines/denoiser.plan"


@given(
    st.builds(
        Placement, st.sampled_from(Loading), st.sampled_from(Guidance), st.none() | st.integers(1)
    )
)
def test_a_placement_is_stored_as_its_three_values(placement: Placement) -> None:
    stored = TypeAdapter(StoredPlacement)
    values = stored.dump_python(placement, mode="json")
    assert values.keys() == {"loading", "guidance", "tile"}
    assert stored.validate_python(values) == placement
