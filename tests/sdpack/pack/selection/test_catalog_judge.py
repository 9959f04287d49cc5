from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sdpack.documents.catalog import Catalog
from sdpack.documents.catalog_files import (
    LocatedCatalog,
    builtin_catalogs,
    default_catalog,
)
from sdpack.documents.source import Source
from sdpack.errors import SourceError
from sdpack.pack.selection.catalog_judge import CatalogJudge

HUB = {"hub": "owner/judge", "revision": "a" * 40}


def judging(optional: bool) -> CatalogJudge:
    zoo = default_catalog()
    values = zoo.catalog.model_dump(mode="json", by_alias=True)
    values["quality"]["other_judges"] = {
        "far": {"source": HUB, "tokenizer": HUB, "optional": optional}
    }
    located = LocatedCatalog(Catalog.model_validate(values), zoo.folder)
    return CatalogJudge(located, folder_in(zoo.folder))


def folder_in(folder: Path) -> Callable[[Source], Path]:
    def folder_of(source: Source) -> Path:
        if source.path is None:
            raise SourceError(f"{source} is not on this machine")
        return folder / source.path

    return folder_of


def test_a_build_goes_on_without_an_optional_judge_that_cannot_be_fetched() -> None:
    said: list[str] = []
    judging(optional=True).check(said.append)
    (words,) = said
    assert words.startswith("the judge far will be left out: ")
    assert "not on this machine" in words


def test_any_other_judge_must_be_fetched() -> None:
    with pytest.raises(SourceError, match="not on this machine"):
        judging(optional=False).check(print)


def test_judges_of_the_catalogs_with_hub_sources_are_pinned_and_the_others_optional() -> None:
    for located in builtin_catalogs():
        quality = located.catalog.quality
        for judge in quality.judges.values():
            assert judge.source.path is not None or judge.source.revision is not None
        for other in quality.other_judges.values():
            assert other.licence
            assert getattr(other, "optional", True)
