from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from zoo.data import other_icons, packages
from zoo.data.dataset import Row


def row(caption: str) -> Row:
    return Row("1F600", "noto", caption, (), "objects", "tool")


def test_icons_are_matched_by_label_and_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    icons = {
        "icons": {
            "alarmclock": {"body": "<a/>"},
            "cat-face-2": {"body": "<b/>"},
            "unknown": {"body": "<c/>"},
        },
        "width": 24,
    }
    (tmp_path / "icons.json").write_text(json.dumps(icons))
    drawn: list[str] = []

    def render(svg: str) -> np.ndarray:
        drawn.append(svg)
        return np.zeros((64, 64, 3), np.uint8)

    monkeypatch.setattr(packages, "fetch", lambda package, cache: tmp_path)
    monkeypatch.setattr(other_icons, "render", render)
    found = other_icons.load([row("alarm clock"), row("cat face"), row("dog")])
    assert [each.caption for each in found.rows] == ["alarm clock", "cat face"] * 2
    assert found.styles == ("fxemoji", "fxemoji", "streamline", "streamline")
    assert found.images.shape == (4, 64, 64, 3)
    assert 'viewBox="0 0 24 16"' in drawn[0]
