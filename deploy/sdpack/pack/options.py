"""What a build and a study are both asked, and the request that makes.

Whatever needs PyTorch is imported once what the options name has been seen to be there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdpack.documents.catalog_files import LocatedCatalog, located_catalog
from sdpack.documents.overwrite import check_spared
from sdpack.documents.profile import Profile, Size, find_profile
from sdpack.engines.detect import require, require_charts
from sdpack.errors import CatalogError, InputError
from sdpack.evaluate.rules import Preference, Rules
from sdpack.progress import Say
from sdpack.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from sdpack.pack.request import BuildRequest

BUILD_IMAGES, STUDY_IMAGES = 384, 64  # drawn with each mix, at most
STUDY_PROFILE = "4gb-gpu"
STUDY_FOLDER = "study"
STUDY_FILES = ("ledger.jsonl", "study.html", "points.csv", "points.json", "charts")


@dataclass(frozen=True)
class Options:
    """What a build and a study are both asked.

    Attributes:
        profile: name of a shipped profile, or path of a YAML file.
        images: pictures drawn with each mix, at most.
        catalog: name of a built-in catalog, path of a YAML file or of its folder; None: the zoo.
        model: diffusers folder or hub repository to build instead of a catalog.
        sizes: of pictures; none takes the catalog's, as far as the profile allows it.
        batch: pictures drawn at once; None: the profile's.
        steps: of denoising; None: the catalog's.
        prefer: what decides among mixes that were shown equal to the best.
    """

    profile: str
    images: int
    catalog: str | None = None
    model: str | None = None
    sizes: tuple[Size, ...] = ()
    batch: int | None = None
    steps: int | None = None
    prefer: Preference = Preference.QUALITY


def bundle_request(
    options: Options, memory: str | int | None, out: Path | None, warn: Say
) -> BuildRequest:
    """The request of a build, once all it needs is seen to be there.

    Args:
        memory: the most the pipeline may take, such as "24MiB"; None: what the profile allows.
        out: folder of the bundle; None: engines/PROFILE.
        warn: told what is odd about a model.

    Raises:
        MissingPackageError: something is not installed.
        InputError: an option is wrong, or nothing can be written into `out`.
    """
    budget = None if memory is None else parse_bytes(memory)
    profile = find_profile(options.profile)
    if budget is not None and budget > profile.memory.total:
        raise InputError(
            f"{memory} of memory is more than the {format_bytes(profile.memory.total)} of "
            f"{profile.name}; give less, or another profile"
        )
    folder = out or Path("engines") / profile.name
    request = _request(options, profile, budget, folder, warn)
    check_spared(_files_read(options, request.located), [folder])
    return request


def study_request(options: Options, budgets: Sequence[int], out: Path, warn: Say) -> BuildRequest:
    """The request of a study, with the largest budget; otherwise as `bundle_request`."""
    request = _request(options, find_profile(options.profile), max(budgets), out, warn)
    check_spared(_files_read(options, request.located), [out / name for name in STUDY_FILES])
    return request


def _request(
    options: Options, profile: Profile, budget: int | None, out: Path, warn: Say
) -> BuildRequest:
    if options.model is not None and options.catalog is not None:
        raise CatalogError("give --model or --catalog, not both")
    _check_writable(out)
    require(profile.runtime)
    require_charts()
    found = (
        located_catalog(options.catalog) if options.model is None else _adopted(options.model, warn)
    )
    from sdpack.pack.request import BuildRequest

    rules = Rules(most=options.images, prefer=options.prefer)
    return BuildRequest(
        profile, found, out, budget, rules, options.sizes, options.batch, options.steps
    )


def _check_writable(folder: Path) -> None:
    """See that a folder can be written before hours of work go into it.

    Raises:
        InputError: a file is in its place or above it, or it is read-only.
    """
    place = folder.absolute()
    there = next(path for path in (place, *place.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise InputError(f"{folder} cannot be written: {there} is not a folder; choose --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written: {there} is read-only; choose --out")


def _adopted(model: str, warn: Say) -> LocatedCatalog:
    from sdpack.export.adopt import adopt

    return adopt(model, warn=warn)


def _files_read(options: Options, located: LocatedCatalog) -> list[Path]:
    """What is read that a user may have given: none of it is to be overwritten."""
    given = [Path(name) for name in (options.profile, options.catalog) if name]
    return [*located.files(), *(path for path in given if path.is_file())]
