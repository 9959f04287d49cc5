from __future__ import annotations

from pathlib import Path

from sdpack.export.single_file.layout import BASES_FOLDER
from sdpack.export.single_file.options import BASES, NO_OPTIONS, FileOptions, Prediction


def test_every_base_has_its_configs() -> None:
    assert {path.stem for path in BASES_FOLDER.glob("*.json")} == set(BASES)


def test_options_that_were_given_are_listed_by_their_names() -> None:
    assert NO_OPTIONS.given == []
    options = FileOptions("sdxl", Prediction.V, Path("f"), Path("v"), (Path("e"),))
    assert options.given == ["--base", "--prediction", "--with", "--vae", "--embedding"]
    assert list(options.files()) == [Path("f"), Path("v"), Path("e")]


def test_a_prediction_has_diffusers_setting() -> None:
    assert (Prediction.V.setting, Prediction.EPSILON.setting) == ("v_prediction", "epsilon")
