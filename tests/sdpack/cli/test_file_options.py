from __future__ import annotations

from pathlib import Path

from sdpack.cli.file_options import FIELDS, read_file_options
from sdpack.export.single_file.options import BASES, FileOptions, Prediction

from tests.sdpack.cli.calling import run


def test_values_of_single_files_are_separated_from_all_others() -> None:
    given = dict(zip(FIELDS, ("sdxl", Prediction.V, Path("f"), None, (Path("e"),)), strict=True))
    file, others = read_file_options({**given, "images": 3})
    assert file == FileOptions("sdxl", Prediction.V, Path("f"), None, (Path("e"),))
    assert others == {"images": 3}


def test_every_base_can_be_given_to_every_command_that_takes_a_model() -> None:
    for words in (("build",), ("plan",), ("study",), ("catalog", "from")):
        shown = "".join(run(*words, "--help").output.split())
        assert all(base in shown for base in BASES)
        assert "--embedding" in shown
