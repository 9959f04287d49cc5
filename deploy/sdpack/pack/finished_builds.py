"""Finding the bundle of an unchanged request again."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from sdpack.documents.bundle import open_bundle
from sdpack.documents.layout import MANIFEST, REPORT
from sdpack.documents.manifest import Manifest
from sdpack.errors import BundleError
from sdpack.pack.request import BuildRequest
from sdpack.store.artifacts import cache_folder, digest, file_sha256
from sdpack.store.ledger import Ledger
from sdpack.version import versions

KIND = "finished build"
PACKAGES = (
    "sdpack",
    "torch",
    "diffusers",
    "transformers",
    "tokenizers",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "numpy",
    "tensorrt_rtx_cu13",
)


@dataclass(frozen=True)
class FinishedBuilds:
    """The finished builds of a request, by everything that determines them."""

    request: BuildRequest

    def find(self) -> Manifest | None:
        """Return the manifest of the request's bundle, if its folder contains it unchanged."""
        out = self.request.out
        if not (out / REPORT).is_file():
            return None
        with closing(_open_ledger()) as ledger:
            known = ledger.find(KIND, self._inputs())
        if known is None:
            return None
        try:
            if file_sha256(out / MANIFEST) != known["manifest"]:
                return None
            return open_bundle(out)
        except (OSError, BundleError):
            return None

    def record(self, manifest: Manifest) -> None:
        """Record a bundle that was just written."""
        value = {"manifest": file_sha256(self.request.out / MANIFEST), "name": manifest.name}
        with closing(_open_ledger()) as ledger:
            ledger.record(KIND, self._inputs(), value)

    def _inputs(self) -> dict[str, Any]:
        """Everything that determines a bundle.

        Files are compared by size and modification time, because hashing gigabytes of weights would
        take too long.
        """
        request = self.request
        return {
            "profile": request.profile.model_dump(mode="json"),
            "catalog": request.catalog.model_dump(mode="json"),
            "files": digest({"files": list(self._files())}),
            "out": str(request.out.resolve()),
            "budget_bytes": request.budget,
            "sizes": [list(size) for size in request.sizes],
            "batch": request.batch,
            "steps": request.steps,
            "max_seconds": request.max_seconds,
            "weights": dict(request.weights),
            "drawn_on": request.drawn_on,
            "rules": {name: str(value) for name, value in asdict(request.rules).items()},
            "machine": [platform.machine(), len(os.sched_getaffinity(0))],
            "tools": versions(PACKAGES),
            "code": source_digest(),
        }

    def _files(self) -> Iterator[list[Any]]:
        """Path, size and modification time of every local file of the catalog."""
        located = self.request.located
        for key, path in sorted(located.local_files()):
            for file in _files_of(path):
                status = file.stat()
                yield [key, str(file), status.st_size, status.st_mtime_ns]


def _open_ledger() -> Ledger:
    return Ledger(cache_folder() / "ledger.sqlite")


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if path.exists() else []
    return sorted(file for file in path.rglob("*") if file.is_file())


@cache
def source_digest() -> str:
    """One hash of this package's own source: another version of it may build other bundles."""
    sources = {name: file.read_text() for name, file in _sources(files("sdpack"), "")}
    return digest(sources)


def _sources(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            yield from _sources(entry, f"{name}/")
        elif entry.name.endswith((".py", ".html", ".css", ".js")):
            yield name, entry
