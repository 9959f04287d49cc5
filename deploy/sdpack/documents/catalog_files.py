"""Finding, reading and writing catalogs: built-in ones, the default one, and files."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from sdpack.documents.catalog import Catalog, Lora
from sdpack.documents.document import read_document
from sdpack.documents.prompts import CatalogPrompt, read_prompt_file
from sdpack.documents.quality import JudgeModel
from sdpack.documents.source import Source
from sdpack.errors import CatalogError
from sdpack.store.files import write_whole

CATALOG_FILE = "catalog.yaml"
ZOO_PACKAGE = "sdpack_zoo"  # has the default catalog if sdpack does not run from its source tree
ZOO_HINT = (
    "the default catalog is the package sdpack-zoo; install it in a clone of sdpack with: "
    "pip install ./zoo, or give --catalog FILE"
)


@dataclass(frozen=True)
class LocatedCatalog:
    """A catalog and the folder that its paths are relative to."""

    catalog: Catalog
    folder: Path

    def path(self, relative: Path) -> Path:
        return self.folder / relative

    def local_files(self) -> Iterator[tuple[str, Path]]:
        """Yield every path in the catalog, with its key."""
        for key, source in self.sources():
            if source.path is not None:
                yield key, self.path(source.path)
        quality = self.catalog.quality
        for key in ("prompts", "calibration", "samples", "real_images"):
            path = getattr(quality, key)
            if path is not None:
                yield f"quality.{key}", self.path(path)

    def files(self) -> list[Path]:
        """Return the local files that a build reads: the catalog's own, and every path in it."""
        own = [self.folder / CATALOG_FILE] if (self.folder / CATALOG_FILE).is_file() else []
        return [*own, *(path for _, path in self.local_files())]

    def sources(self) -> Iterator[tuple[str, Source]]:
        """Yield every source in the catalog, with its key."""
        catalog = self.catalog
        for name, encoder in catalog.text_encoders.items():
            yield f"text_encoders.{name}", encoder.source
            yield f"text_encoders.{name}.tokenizer", encoder.tokenizer
            yield from _lora_sources(f"text_encoders.{name}", encoder.loras)
        for name, denoiser in catalog.denoisers.items():
            yield f"denoisers.{name}", denoiser.source
            yield from _lora_sources(f"denoisers.{name}", denoiser.loras)
            if denoiser.sampling is not None:
                yield f"denoisers.{name}.sampling.scheduler", denoiser.sampling.scheduler
        for name, decoder in catalog.decoders.items():
            yield f"decoders.{name}", decoder.source
        for number, bridge in enumerate(catalog.bridges):
            yield f"bridges.{number}", bridge.source
        yield "sampling.scheduler", catalog.sampling.scheduler
        if catalog.quality.judge is not None and catalog.quality.tokenizer is not None:
            yield "quality.judge", catalog.quality.judge
            yield "quality.tokenizer", catalog.quality.tokenizer
        for name, judge in catalog.quality.other_judges.items():
            if isinstance(judge, JudgeModel):
                yield f"quality.other_judges.{name}", judge.source
                if judge.tokenizer is not None:
                    yield f"quality.other_judges.{name}.tokenizer", judge.tokenizer

    def missing(self) -> list[tuple[str, Path]]:
        """Return the paths in the catalog that do not exist, with their keys."""
        return [(key, path) for key, path in self.local_files() if not path.exists()]

    def prompts(self, path: Path) -> list[str]:
        """Return the texts in one of the catalog's prompt files.

        Raises:
            CatalogError: as in `prompt_list`.
        """
        return [prompt.text for prompt in self.prompt_list(path)]

    def prompt_list(self, path: Path) -> list[CatalogPrompt]:
        """Return the prompts in one of the catalog's prompt files.

        Raises:
            CatalogError: the file is missing, or a line is not a JSON object with a "text".
        """
        return read_prompt_file(self.path(path))


def _lora_sources(key: str, loras: Sequence[Lora]) -> Iterator[tuple[str, Source]]:
    for number, lora in enumerate(loras):
        yield f"{key}.loras.{number}", lora.source


def read_catalog(path: Path) -> LocatedCatalog:
    """Read a catalog from a YAML file, or from the catalog.yaml of a folder.

    Raises:
        CatalogError: the file is missing, is not YAML, or is invalid; names line, key and value.
    """
    file = path / CATALOG_FILE if path.is_dir() else path
    return LocatedCatalog(read_document(file, Catalog, CatalogError), file.parent)


def catalogs_folder() -> Path:
    """Return the folder of the built-in catalogs."""
    return Path(__file__).parents[1] / "catalogs"


def builtin_catalogs() -> list[LocatedCatalog]:
    """Return the built-in catalogs, sorted by name.

    Raises:
        CatalogError: one is damaged.
    """
    files = sorted(catalogs_folder().glob("*.yaml"), key=lambda path: path.stem)
    return [read_catalog(path) for path in files]


def find_catalog(name: str) -> LocatedCatalog:
    """Return a built-in catalog by name, or the one at a path.

    Raises:
        CatalogError: no such catalog or file, or it is invalid.
    """
    path = Path(name)
    if path.exists() or path.suffix in (".yaml", ".yml"):
        return read_catalog(path)
    builtin = {file.stem: file for file in catalogs_folder().glob("*.yaml")}
    if name in builtin:
        return read_catalog(builtin[name])
    near = difflib.get_close_matches(name, builtin, n=1)
    meant = f"; did you mean {near[0]}?" if near else "."
    names = ", ".join(sorted(builtin))
    raise CatalogError(
        f"no catalog {name!r}{meant} Give one of {names}, or a .yaml file or its folder"
    )


def catalog_file(path: Path) -> Path:
    """Return the file that a catalog is written to, given a folder or a file."""
    return path if path.suffix in (".yaml", ".yml") else path / CATALOG_FILE


def write_catalog(catalog: Catalog, path: Path) -> Path:
    """Write a catalog with absolute paths into a folder or a .yaml file; return the file.

    Raises:
        OSError: it cannot be written.
    """
    file = catalog_file(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    values = catalog.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    text = yaml.safe_dump({"schema": catalog.version, **values}, sort_keys=False, width=100)
    write_whole(file, text.encode())
    return file


def prompts_folder() -> Path:
    """Return the folder of the package's prompt files, for catalogs without their own."""
    return Path(__file__).parents[1] / "prompts"


def default_catalog() -> LocatedCatalog:
    """Return the zoo of the source tree that this package runs from, or of the sdpack-zoo package.

    Raises:
        CatalogError: neither exists.
    """
    for folder in _zoo_folders():
        if (folder / CATALOG_FILE).is_file():
            return read_catalog(folder / CATALOG_FILE)
    raise CatalogError(f"no catalog was given; {ZOO_HINT}")


def _zoo_folders() -> Iterator[Path]:
    yield Path(__file__).parents[3] / "zoo"
    spec = importlib.util.find_spec(ZOO_PACKAGE)
    yield from map(Path, (spec.submodule_search_locations or ()) if spec else ())


def located_catalog(name: str | None) -> LocatedCatalog:
    """Return the catalog with this name or at this path; None means the zoo's.

    Raises:
        CatalogError: no such catalog or file, or it is invalid.
    """
    return default_catalog() if name is None else find_catalog(name)
