"""Revisions of hub repositories that a catalog names without one: resolved once, then locked.

The lock is a file beside the catalog, or in the cache for the catalogs that come with sdpack.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdpack.documents.catalog import Catalog
from sdpack.documents.catalog_files import LocatedCatalog, catalogs_folder
from sdpack.errors import SourceError
from sdpack.export.source import hub_source
from sdpack.store.artifacts import cache_folder
from sdpack.store.files import write_whole

LOCK_FILE = "revisions.lock.json"


def pinned(located: LocatedCatalog, must: bool = True) -> LocatedCatalog:
    """Give every hub source of a catalog a revision: the locked one, or the current one.

    Args:
        located: the catalog.
        must: whether a repository that cannot be reached is an error; otherwise it stays as it is.

    Raises:
        SourceError: a repository cannot be reached, or the lock is damaged.
        OSError: the lock cannot be written.
    """
    names = {source.hub for _, source in located.sources() if source.revision is None}
    wanted = sorted(name for name in names if name is not None)
    if not wanted:
        return located
    path = _lock_path(located.folder)
    locked = _read(path)
    new = {}
    for name in wanted:
        if name not in locked:
            try:
                new[name] = str(hub_source(name).revision)
            except SourceError:
                if must:
                    raise
    if new:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**locked, **new}, indent=1, sort_keys=True)
        write_whole(path, f"{text}\n".encode())
    return LocatedCatalog(_with_revisions(located.catalog, {**locked, **new}), located.folder)


def _lock_path(folder: Path) -> Path:
    is_own = folder.resolve() == catalogs_folder().resolve()
    can_write = os.access(folder, os.W_OK | os.X_OK)
    return (cache_folder() if is_own or not can_write else folder) / LOCK_FILE


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(revision) for name, revision in values.items()}
    except (OSError, ValueError, AttributeError) as cause:
        raise SourceError(
            f"{path} is damaged ({type(cause).__name__}); restore it, or delete it to take the "
            "current revisions"
        ) from cause


def _with_revisions(catalog: Catalog, revisions: Mapping[str, str]) -> Catalog:
    values = catalog.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return Catalog.model_validate({"schema": catalog.version, **_filled(values, revisions)})


def _filled(value: Any, revisions: Mapping[str, str]) -> Any:
    """Add revisions to all sources in nested values."""
    if isinstance(value, dict):
        filled = {key: _filled(each, revisions) for key, each in value.items()}
        if filled.get("hub") in revisions and filled.get("revision") is None:
            filled["revision"] = revisions[filled["hub"]]
        return filled
    return [_filled(each, revisions) for each in value] if isinstance(value, list) else value
