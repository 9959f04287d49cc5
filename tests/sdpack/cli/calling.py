"""Calling the command line in this process."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result
from sdpack.cli.main import main


def run(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def read_json(*words: str) -> Any:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
