from __future__ import annotations

import json

from click.testing import CliRunner
from sdpack.cli.main import main as cli


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
