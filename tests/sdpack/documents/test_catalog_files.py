from __future__ import annotations

from pathlib import Path

import pytest
from sdpack.documents.catalog_files import (
    builtin_catalogs,
    catalog_file,
    default_catalog,
    find_catalog,
    located_catalog,
    read_catalog,
    write_catalog,
)
from sdpack.errors import CatalogError

from tests.sdpack.documents.test_catalog import values, written


def test_the_zoo_has_eighteen_mixes_and_every_file() -> None:
    zoo = default_catalog()
    assert len(list(zoo.catalog.mixable())) == 3 * 3 * 2
    assert all(mix.bridges for mix in zoo.catalog.mixable())
    assert zoo.missing() == []
    assert len(zoo.prompts(zoo.catalog.quality.prompts)) == 384


def test_a_folder_stands_for_its_catalog(tmp_path: Path) -> None:
    written(tmp_path, values())
    assert read_catalog(tmp_path).catalog.name == "tiny"


def test_missing_files_are_listed_by_key(tmp_path: Path) -> None:
    missing = dict(read_catalog(written(tmp_path, values())).missing())
    assert missing["sampling.scheduler"] == tmp_path / "s"
    assert missing["quality.prompts"] == tmp_path / "p.jsonl"


def test_a_catalog_that_is_not_there_says_what_is() -> None:
    with pytest.raises(
        CatalogError, match=r"no catalog 'sdlx'; did you mean sdxl.*, or a .yaml file"
    ):
        find_catalog("sdlx")


def test_a_written_catalog_reads_as_it_was(tmp_path: Path) -> None:
    found = find_catalog("sdxl").catalog
    assert read_catalog(write_catalog(found, tmp_path / "x.yaml")).catalog == found


def test_built_in_catalogs_come_by_name() -> None:
    names = [found.catalog.name for found in builtin_catalogs()]
    assert names == sorted(names)
    assert [find_catalog(name).catalog.name for name in names] == names
    assert located_catalog("sd15").catalog == find_catalog("sd15").catalog
    assert located_catalog(None).catalog == default_catalog().catalog


def test_every_source_has_a_key_of_its_own() -> None:
    for found in builtin_catalogs():
        keys = [key for key, _ in found.sources()]
        assert len(set(keys)) == len(keys)
        assert {key.split(".")[0] for key in keys} >= {"text_encoders", "denoisers", "decoders"}


def test_files_read_are_the_catalog_and_every_path_in_it(tmp_path: Path) -> None:
    found = read_catalog(written(tmp_path, values()))
    names = {"catalog.yaml", *"xtbsj", "p.jsonl", "c.jsonl", "s.jsonl", "r.png"}
    assert {path.relative_to(tmp_path).as_posix() for path in found.files()} == names


@pytest.mark.parametrize(("given", "file"), [("a/b.yaml", "a/b.yaml"), ("a", "a/catalog.yaml")])
def test_a_catalog_is_written_into_a_folder_or_a_file(given: str, file: str) -> None:
    assert catalog_file(Path(given)) == Path(file)
