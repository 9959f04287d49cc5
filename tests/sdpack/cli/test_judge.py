from __future__ import annotations

import json
from pathlib import Path

import yaml
from click.testing import CliRunner
from sdpack.cli.main import main as cli
from sdpack.documents.catalog_files import default_catalog


def test_the_zoos_judge_is_checked_on_real_images() -> None:
    ran = CliRunner().invoke(cli, ["-q", "judge", "check", "-n", "16", "--json"])
    (found,) = json.loads(ran.stdout)
    assert (found["images"], found["count"]) == ("real", 16)
    effects = {effect["change"]: effect for effect in found["effects"]}
    assert effects["a wrong caption"]["verdict"] == "costs"
    assert not effects["mirrored"]["damage"]
    rewarded = [e for e in effects.values() if e["damage"] and e["low"] > 0]
    assert ran.exit_code == (1 if rewarded else 0)


def test_a_catalog_without_real_images_needs_a_bundle_or_a_folder() -> None:
    ran = CliRunner().invoke(cli, ["judge", "check", "--catalog", "sd15"])
    assert ran.exit_code == 2
    assert "has no real images; give a --bundle" in ran.stderr
    assert "Traceback" not in ran.output


def test_a_catalog_without_a_judge_is_told_before_anything_is_drawn(tmp_path: Path) -> None:
    values = yaml.safe_load((default_catalog().folder / "catalog.yaml").read_text())
    quality = values["quality"]
    for key in ("judge", "tokenizer", "real_images", "views", "other_judges"):
        del quality[key]
    for group in ("text_encoders", "denoisers", "decoders"):
        values[group] = dict(list(values[group].items())[-1:])
    values["bridges"] = [b for b in values["bridges"] if b["text_encoder"] == b["denoiser"] == "l"]
    path = tmp_path / "catalog.yaml"
    path.write_text(yaml.safe_dump(values))
    ran = CliRunner().invoke(cli, ["judge", "check", "--catalog", str(path), "--bundle", "nowhere"])
    assert ran.exit_code == 2
    assert "has no judge to check; name one under quality.judge" in ran.stderr
    quality["views"] = [{"blur": 0.01}]
    path.write_text(yaml.safe_dump(values))
    refused = CliRunner().invoke(cli, ["judge", "check", "--catalog", str(path)])
    assert refused.exit_code == 2
    assert "views are what a judge sees" in refused.stderr


def test_another_judge_of_a_catalog_is_checked_by_its_name(tmp_path: Path) -> None:
    zoo = default_catalog().folder
    values = yaml.safe_load((zoo / "catalog.yaml").read_text())
    quality = values["quality"]
    source, tokenizer = (
        {"path": str((zoo / f"parts/{name}").absolute())} for name in ("judge", "tokenizer")
    )
    quality["other_judges"] = {
        "plain": {"source": source, "tokenizer": tokenizer},
        "text": {"ocr": "rapidocr"},
    }
    for link in ("parts", "prompts"):
        (tmp_path / link).symlink_to(zoo.absolute() / link)
    path = tmp_path / "catalog.yaml"
    path.write_text(yaml.safe_dump(values))
    words = ["judge", "check", "plain", "--catalog", str(path), "-n", "16", "--json"]
    ran = CliRunner().invoke(cli, words)
    assert ran.exit_code == 0, ran.output
    (found,) = json.loads(ran.stdout)
    assert found["count"] == 16
    decides = CliRunner().invoke(cli, [word for word in words if word != "plain"])
    assert json.loads(decides.stdout)[0]["score"] != found["score"]  # it sees views
    for name, said in (("text", "is not checked with captions"), ("odd", "other_judges are: pl")):
        refused = CliRunner().invoke(cli, ["judge", "check", name, "--catalog", str(path)])
        assert refused.exit_code == 2
        assert said in refused.stderr
