from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from sdpack.cli.request_options import read_options, request_options
from sdpack.errors import InputError
from sdpack.evaluate.rules import Preference
from sdpack.export.single_file.options import NO_OPTIONS, FileOptions, Prediction
from sdpack.pack.options import Options


def options_of(*words: str) -> Options:
    """What a command with these options is asked."""
    asked: list[Options] = []

    @click.command()
    @request_options(images=48)
    def command(**given: Any) -> None:
        asked.append(read_options("cpu-2gb", **given))

    result = CliRunner().invoke(command, words)
    if result.exception is not None:
        raise result.exception
    return asked[0]


def test_defaults_leave_everything_to_the_catalog_and_the_profile() -> None:
    assert options_of() == Options("cpu-2gb", 48, None, None, (), None, None, Preference.QUALITY)


def test_sizes_are_heights_and_widths_and_batches_a_range() -> None:
    found = options_of(
        "--size", "512,768x512", "--batch", "1-4", "--prefer", "speed", "--steps", "9"
    )
    assert found.sizes == ((512, 512), (512, 768))
    assert found.batch == 4
    assert (found.prefer, found.steps, found.images) == (Preference.SPEED, 9, 48)


@pytest.mark.parametrize("words", [("--size", "much"), ("--batch", "4-1")])
def test_invalid_sizes_and_batches_are_refused(words: tuple[str, str]) -> None:
    with pytest.raises(InputError):
        options_of(*words)


def test_options_of_a_single_file_are_kept_together(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.touch()
    assert options_of().file == NO_OPTIONS
    words = ("--base", "sdxl", "--prediction", "v", "--with", str(tmp_path), "--vae", str(path))
    found = options_of("--model", str(path), *words, "--embedding", str(path))
    assert found.file == FileOptions("sdxl", Prediction.V, tmp_path, path, (path,))
    assert found.model == str(path)


def test_files_that_do_not_exist_and_unknown_bases_are_refused(tmp_path: Path) -> None:
    for words in (("--vae", str(tmp_path / "a")), ("--base", "sd14"), ("--prediction", "x")):
        with pytest.raises(SystemExit):
            options_of(*words)
