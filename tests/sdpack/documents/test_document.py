from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import PositiveInt, ValidationError, field_validator
from sdpack.documents.document import Document, parse_document, read_document
from sdpack.errors import CatalogError, ProfileError


class Inner(Document):
    size: PositiveInt


class Outer(Document):
    name: str
    inner: Inner
    several: tuple[Inner, ...] = ()

    @field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        if len(name) > 20:
            raise ValueError("the name is long")
        return name


GOOD = "name: a\ninner:\n  size: 3\nseveral:\n- size: 1\n- size: 2\n"


def parsed(text: str) -> Outer:
    return parse_document(text, "a.yaml", Outer, ProfileError)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("size: 3", "size: 0"), "line 3: inner.size: "),
        (("size: 3", "size: 0"), "(it is 0)"),
        (("- size: 2", "- size: x"), "line 6: several.1.size: "),
        (("name: a", "nane: a"), "line 1: name: missing; add it"),
        (("name: a", "nane: a"), "line 1: nane: unknown key; check its spelling or remove it"),
        (("name: a", f"name: {'a' * 21}"), "line 1: name: the name is long (it is 'aaa"),
        (("inner:\n  size: 3", "inner: 7"), "line 2: inner: "),
    ],
)
def test_a_broken_rule_names_file_line_key_and_value(change: tuple[str, str], said: str) -> None:
    with pytest.raises(ProfileError) as caught:
        parsed(GOOD.replace(*change))
    assert said in str(caught.value)
    assert str(caught.value).startswith("a.yaml, line ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a.yaml has no keys"),
        ("- a\n- b\n", "a.yaml has no keys"),
        ("name: a\nname: [", "a.yaml, line 2 is not YAML: "),
        ("name: \x00", "a.yaml is not YAML: "),
    ],
)
def test_text_that_is_not_a_yaml_mapping_is_refused(text: str, said: str) -> None:
    with pytest.raises(ProfileError) as caught:
        parsed(text)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_file_is_read_and_one_that_cannot_be_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with pytest.raises(CatalogError, match=r"a\.yaml cannot be read: No such file"):
        read_document(path, Outer, CatalogError)
    path.write_bytes(b"name: \xff")
    with pytest.raises(CatalogError, match="not UTF-8 text"):
        read_document(path, Outer, CatalogError)
    path.write_text(GOOD)
    assert read_document(path, Outer, CatalogError) == parsed(GOOD)


@given(
    st.builds(
        dict,
        name=st.text(max_size=20),
        inner=st.fixed_dictionaries({"size": st.integers(1)}),
        several=st.lists(st.fixed_dictionaries({"size": st.integers(1)}), max_size=3),
    )
)
def test_a_document_survives_yaml(values: dict[str, Any]) -> None:
    made = parsed(yaml.safe_dump(values))
    assert made == Outer.model_validate(values)
    assert parsed(yaml.safe_dump(made.model_dump(mode="json"))) == made


def test_a_document_does_not_change() -> None:
    made: Any = parsed(GOOD)
    with pytest.raises(ValidationError, match="frozen"):
        made.name = "b"
