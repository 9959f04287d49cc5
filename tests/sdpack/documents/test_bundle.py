from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from sdpack.documents.bundle import open_bundle, read_manifest, write_bundle
from sdpack.documents.layout import portable_name, tokenizer_name
from sdpack.documents.manifest import NEEDED, Manifest
from sdpack.documents.profile import find_profile
from sdpack.domain.placement import Role
from sdpack.errors import BundleError, SdpackError, StoreError


def manifest(**changes: Any) -> Manifest:
    part = {
        "candidate": "s",
        "precision": "w4",
        "source": "parts/s",
        "licence": "MIT",
        "parameters": 7,
        "graph": "onnx/unet/model.onnx",
    }
    values = {
        "name": "test",
        "catalog": "zoo",
        "profile": find_profile("4gb-gpu").model_dump(by_alias=True),
        "parts": dict.fromkeys(NEEDED, part),
        "placement": {"loading": "resident", "guidance": "batched", "tile": None},
        "sampling": {
            "steps": 16,
            "guidance_scale": 3.0,
            "negative_prompt": "",
            "height": 64,
            "width": 64,
            "batch": 1,
        },
        "latents": {"channels": 16, "scaling_factor": 1.0, "shift_factor": 0.0, "pixels": 8},
        "memory": {
            "budget_bytes": 100,
            "predicted_bytes": 90,
            "predicted_from": "the graphs",
            "weights": {"denoiser": 50},
            "activation_bytes": 40,
            "activation_role": "denoiser",
            "fixed_bytes": 0,
        },
        "evidence": {
            "metric": "judge similarity",
            "measured_on": "here",
            "quality": {"value": 0.5, "low": 0.4, "high": 0.6, "pictures": 16},
            "kid": None,
            "mixes": 1,
            "pictures": 16,
            "standings": [
                {
                    "mix": "s/w4 + s/w4 + s/w4",
                    "placement": "resident, batched",
                    "peak_bytes": 90,
                    "size_bytes": 90,
                    "weights": {"denoiser": 50},
                    "outcome": "won",
                    "lost_to": "s/w4 + s/w4 + s/w4",
                    "quality": {"value": 0.5, "low": 0.4, "high": 0.6, "pictures": 16},
                    "difference": 0.0,
                    "low": 0.0,
                    "high": 0.0,
                    "latency_s": None,
                }
            ],
        },
        "tools": {"sdpack": "0"},
    }
    return Manifest.model_validate({**values, **changes})


def fill(folder: Path) -> None:
    (folder / "onnx" / "unet").mkdir(parents=True)
    (folder / "onnx" / "unet" / "model.onnx").write_bytes(b"graph")
    (folder / "sampler.json").write_text("{}")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "b", manifest(), fill)
    assert sorted(written.files) == ["onnx/unet/model.onnx", "sampler.json"]
    assert open_bundle(tmp_path / "b") == written


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_bundle(tmp_path / name, manifest(), fill)
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (
        tmp_path / "b" / "manifest.json"
    ).read_bytes()


@pytest.mark.parametrize("damage", ["changed", "cut", "missing", "manifest cut", "no manifest"])
def test_a_damaged_bundle_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "b"
    write_bundle(folder, manifest(), fill)
    graph, said = folder / "onnx" / "unet" / "model.onnx", folder / "manifest.json"
    if damage == "changed":
        graph.write_bytes(b"Graph")
    elif damage == "cut":
        graph.write_bytes(b"gra")
    elif damage == "missing":
        graph.unlink()
    elif damage == "manifest cut":
        said.write_text(said.read_text()[:200])
    else:
        said.unlink()
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def rewritten(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_report_may_be_written_into_a_sealed_bundle_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    write_bundle(folder, manifest(), fill)
    (folder / "charts").mkdir()
    for name in ("report.html", ".report.html.unfinished", "charts/memory.png", "verified.json"):
        (folder / name).write_text("x")
    assert open_bundle(folder)
    (folder / "other.html").write_text("x")
    with pytest.raises(BundleError, match=r"other.html has no checksum"):
        open_bundle(folder)


def test_a_graph_needs_a_checksum_wherever_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    write_bundle(folder, manifest(), fill)
    (folder / "charts").mkdir()
    (folder / "charts" / "model.onnx").write_bytes(b"graph")
    parts = json.loads((folder / "manifest.json").read_text())["parts"]
    parts["denoiser"]["graph"] = "charts/model.onnx"
    rewritten(folder, parts=parts)
    with pytest.raises(BundleError, match=r"charts/model.onnx has no checksum"):
        open_bundle(folder)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", manifest(), fill)
    rewritten(tmp_path / "b", schema=3)
    with pytest.raises(BundleError, match="schema"):
        read_manifest(tmp_path / "b")


def test_a_manifest_cannot_reach_outside_its_bundle(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    write_bundle(tmp_path / "b", manifest(), fill)
    rewritten(tmp_path / "b", files={"../secret": "0"})
    with pytest.raises(BundleError, match="outside"):
        open_bundle(tmp_path / "b")


def test_a_part_without_a_checksum_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", manifest(), fill)
    files = dict(read_manifest(tmp_path / "b").files)
    del files["onnx/unet/model.onnx"]
    rewritten(tmp_path / "b", files=files)
    with pytest.raises(BundleError, match="no checksum"):
        open_bundle(tmp_path / "b")


def test_a_file_without_a_checksum_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", manifest(), fill)
    (tmp_path / "b" / "verified.json").write_text("{}")
    open_bundle(tmp_path / "b")
    (tmp_path / "b" / "onnx" / "more.data").write_text("x")
    with pytest.raises(BundleError, match=r"more\.data has no checksum"):
        open_bundle(tmp_path / "b")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("parts", {}),
        ("latents", {"channels": 16, "scaling_factor": 1.0, "shift_factor": 0.0, "pixels": 0}),
        ("placement", {"loading": "resident", "guidance": "batched", "tile": -1}),
        ("placement", {"loading": "resident", "guidance": "batched", "tile": 32}),
        ("files", {"onnx/\0": "0"}),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    write_bundle(tmp_path / "b", manifest(), fill)
    rewritten(tmp_path / "b", **{key: value})
    with pytest.raises(BundleError, match=r"manifest\.json"):
        open_bundle(tmp_path / "b")


def test_a_folder_of_other_things_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(StoreError, match="choose another --out"):
        write_bundle(tmp_path / "mine", manifest(), fill)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"
    with pytest.raises(StoreError, match="folder of its own"):
        write_bundle(Path("/"), manifest(), fill)


def test_a_bundle_can_be_written_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    write_bundle(Path(), manifest(), fill)
    open_bundle(tmp_path / "b")


def test_a_failed_build_leaves_the_old_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    before = write_bundle(folder, manifest(), fill)

    def fail(new: Path) -> None:
        fill(new)
        raise SdpackError("no")

    with pytest.raises(SdpackError, match="no"):
        write_bundle(folder, manifest(name="other"), fail)
    assert open_bundle(folder) == before
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == ["b"]


def test_what_fails_once_the_bundle_is_complete_leaves_the_old_one_too(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    write_bundle(folder, manifest(name="old"), fill)

    def finish(new: Path) -> None:
        assert open_bundle(new).name == "new"
        raise BundleError("no charts")

    with pytest.raises(BundleError, match="no charts"):
        write_bundle(folder, manifest(name="new"), fill, finish)
    assert open_bundle(folder).name == "old"
    with pytest.raises(BundleError, match="no charts"):
        write_bundle(tmp_path / "c", manifest(name="new"), fill, finish)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["b"]


def test_a_new_bundle_replaces_the_old_one_whole(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    write_bundle(folder, manifest(), fill)
    (folder / "left.over").write_text("x")
    write_bundle(folder, manifest(name="other"), fill)
    assert read_manifest(folder).name == "other"
    assert not (folder / "left.over").exists()


def test_two_builds_into_one_folder_get_a_clear_word(tmp_path: Path) -> None:
    anothers = FileLock(tmp_path / ".b.lock")
    with anothers, pytest.raises(StoreError, match="another build is writing"):
        write_bundle(tmp_path / "b", manifest(), fill)
    write_bundle(tmp_path / "b", manifest(), fill)
    open_bundle(tmp_path / "b")


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file"):
        write_bundle(tmp_path / "file" / "b", manifest(), fill)


def test_the_portable_folders_are_those_optimum_reads() -> None:
    sdxl = (Role.TEXT_ENCODER, Role.TEXT_ENCODER_2, Role.DENOISER, Role.DECODER)
    named = [portable_name(role, "UNet2DConditionModel") for role in sdxl]
    assert named == ["text_encoder", "text_encoder_2", "unet", "vae_decoder"]
    assert portable_name(Role.DENOISER, "SD3Transformer2DModel") == "transformer"
    assert tokenizer_name(Role.TEXT_ENCODER) == "onnx/tokenizer"
    assert tokenizer_name(Role.TEXT_ENCODER_3) == "onnx/tokenizer_3"
