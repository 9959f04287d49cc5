from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from sdpack.catalog import default_catalog, read_catalog, read_prompts
from sdpack.errors import CatalogError

COMMIT = "0123456789" * 4


def values() -> dict[str, Any]:
    part = {"source": {"path": "x"}, "licence": "MIT"}
    return {
        "schema": 1,
        "name": "tiny",
        "image_size": 64,
        "text_encoders": {"e": {**part, "tokenizer": {"path": "t"}}},
        "denoisers": {"d": {**part, "latents": "a"}},
        "decoders": {"v": {**part, "latents": "a"}},
        "bridges": [
            {"text_encoder": "e", "denoiser": "d", "source": {"path": "b"}, "licence": "MIT"}
        ],
        "sampling": {"scheduler": {"path": "s"}, "steps": 4, "guidance_scale": 2},
        "quality": {
            "judge": {"path": "j"},
            "tokenizer": {"path": "t"},
            "prompts": "p.jsonl",
            "calibration": "c.jsonl",
            "samples": "s.jsonl",
            "real_images": "r.png",
        },
    }


def written(folder: Path, catalog: Any) -> Path:
    path = folder / "catalog.yaml"
    path.write_text(yaml.safe_dump(catalog, sort_keys=False))
    return path


def changed(key: str, value: Any) -> dict[str, Any]:
    catalog = copy.deepcopy(values())
    place = catalog
    *path, last = key.split(".")
    for step in path:
        place = place[step]
    place[last] = value
    return catalog


def test_the_zoo_has_eighteen_mixes_and_every_file() -> None:
    zoo = default_catalog()
    assert len(list(zoo.catalog.mixable())) == 3 * 3 * 2
    assert all(mix.bridges for mix in zoo.catalog.mixable())
    assert zoo.missing() == []
    assert len(zoo.prompts(zoo.catalog.quality.prompts)) == 384


def test_a_folder_stands_for_its_catalog(tmp_path: Path) -> None:
    written(tmp_path, values())
    assert read_catalog(tmp_path).catalog.name == "tiny"


def test_shared_states_need_no_bridge(tmp_path: Path) -> None:
    catalog = changed("bridges", [])
    catalog["text_encoders"]["e"]["states"] = "clip-l"
    catalog["denoisers"]["d"]["states"] = "clip-l"
    (mix,) = read_catalog(written(tmp_path, catalog)).catalog.mixable()
    assert not mix.bridges


def test_parts_of_other_latents_never_meet(tmp_path: Path) -> None:
    catalog = values()
    catalog["decoders"]["w"] = {**catalog["decoders"]["v"], "latents": "b"}
    read = read_catalog(written(tmp_path, catalog)).catalog
    assert [mix.decoder for mix in read.mixable()] == ["v"]
    assert [(group, name) for group, name, _ in read.unused()] == [("decoders", "w")]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("bridges", [], "no candidates work together"),
        ("denoisers.d.latents", "b", "no candidates work together"),
        ("bridges.0.denoiser", "x", "there is no denoiser 'x'"),
        ("denoisers.d.source", {}, "either path or hub"),
        ("denoisers.d.source", {"hub": "a/b"}, "pin a/b to a 40-digit commit"),
        ("denoisers.d.source", {"hub": "a/b", "revision": "main"}, "revision"),
        ("denoisers.d.source", {"path": "x", "revision": COMMIT}, "belong to hub"),
        ("denoisers.d.weights", 3, "denoisers.d.weights: unknown key"),
        ("denoisers", {}, "denoisers"),
        ("image_size", 60, "60 is not a multiple of 8"),
        ("sampling.steps", 0, "sampling.steps"),
        ("sampling.guidance_scale", -1, "sampling.guidance_scale"),
        ("denoisers", {"a/b": values()["denoisers"]["d"]}, "'a/b' is no name"),
    ],
)
def test_a_broken_rule_names_its_key(tmp_path: Path, key: str, value: Any, said: str) -> None:
    catalog = values()
    if key == "bridges.0.denoiser":
        catalog["bridges"][0]["denoiser"] = value
    else:
        catalog = changed(key, value)
    path = written(tmp_path, catalog)
    with pytest.raises(CatalogError) as caught:
        read_catalog(path)
    assert said in str(caught.value)
    assert f"{path}, line " in str(caught.value)


def test_two_bridges_for_one_pair_are_refused(tmp_path: Path) -> None:
    catalog = changed("bridges", values()["bridges"] * 2)
    with pytest.raises(CatalogError, match="e and d have more than one"):
        read_catalog(written(tmp_path, catalog))


def test_a_pinned_hub_source(tmp_path: Path) -> None:
    source = {"hub": "o/r", "revision": COMMIT, "subfolder": "unet"}
    read = read_catalog(written(tmp_path, changed("denoisers.d.source", source)))
    assert str(read.catalog.denoisers["d"].source) == "o/r@012345678901/unet"
    assert "denoisers.d" not in dict(read.local_files())


def test_missing_files_are_listed_by_key(tmp_path: Path) -> None:
    missing = dict(read_catalog(written(tmp_path, values())).missing())
    assert missing["sampling.scheduler"] == tmp_path / "s"
    assert missing["quality.prompts"] == tmp_path / "p.jsonl"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no prompts"),
        ("{", "line 1: not JSON"),
        ('{"text": "a"}\n{"prompt": "b"}', 'line 2: no "text"'),
        ('{"text": " "}', 'no "text"'),
        ('["a"]', 'no "text"'),
    ],
)
def test_prompts_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    with pytest.raises(CatalogError, match=said):
        read_prompts(path)
