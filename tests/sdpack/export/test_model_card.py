from __future__ import annotations

from pathlib import Path

import pytest
from sdpack.export.model_card import licence_of_card, stated_licence

FLUX = "flux-1-dev-non-commercial-license"


@pytest.mark.parametrize(
    ("settings", "licence"),
    [
        ("license: openrail++", "openrail++"),
        ("license: other\nlicense_name: " + FLUX, FLUX),
        ("license: other", "other"),
        ("license: [mit, apache-2.0]", "mit, apache-2.0"),
        ("license: apache-2.0\nlicense_name: mine", "apache-2.0"),
        ("tags: [text-to-image]", None),
        ("license:", None),
        ("license: [", None),
        ("- a\n- b", None),
    ],
)
def test_the_licence_is_in_the_settings(settings: str, licence: str | None) -> None:
    found = licence_of_card(f"---\n{settings}\n---\n# A model\nlicense: wrong\n")
    assert found == licence


@pytest.mark.parametrize("text", ["", "# A model\nlicense: mit\n", "---\nlicense: mit\n"])
def test_a_card_without_settings_states_none(text: str) -> None:
    assert licence_of_card(text) is None


def test_a_folder_without_a_readable_card_states_none(tmp_path: Path) -> None:
    assert stated_licence(tmp_path) is None
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\n---\n")
    assert stated_licence(tmp_path) is None
