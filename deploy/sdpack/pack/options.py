"""The options that a build and a study share, and the requests made from them.

Modules that need PyTorch are imported only after the options have been checked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdpack.documents.catalog_files import LocatedCatalog, located_catalog
from sdpack.documents.overwrite import check_spared
from sdpack.documents.profile import Profile, Size, find_profile
from sdpack.domain.category_weights import full_names
from sdpack.engines.detect import require, require_charts
from sdpack.engines.drawing import DrawOn, drawing_runtime
from sdpack.errors import CatalogError, InputError
from sdpack.evaluate.rules import Preference, Rules
from sdpack.export.single_file.options import NO_OPTIONS, FileOptions
from sdpack.progress import Say
from sdpack.units import format_bytes, parse_bytes
from sdpack.workers.executor import ExecutorKind, WorkerOptions

if TYPE_CHECKING:
    from sdpack.pack.request import BuildRequest

# The most drawn with each mix: all prompts of the built-in categories; fewer of each if images are
# large and a CPU draws them.
BUILD_IMAGES, LARGE_BUILD_IMAGES, STUDY_IMAGES = 480, 80, 64
MOST_NOISES = 8  # of a prompt, if more images are asked for than there are prompts
MOST_WORKERS = 256
STUDY_PROFILE = "4gb-gpu"
STUDY_FOLDER = "study"
STUDY_FILES = ("ledger.jsonl", "study.html", "points.csv", "points.json", "charts")


@dataclass(frozen=True)
class Options:
    """The options that a build and a study share.

    Attributes:
        profile: name of a shipped profile, or path of a YAML file.
        images: the most images drawn with each mix; None for what suits a build.
        catalog: name of a built-in catalog, or path of a YAML file or its folder; None for the zoo.
        model: diffusers folder, single file or hub repository to build instead of a catalog.
        file: what a model's single file does not tell.
        sizes: heights and widths of images; empty for the catalog's, within the profile's.
        batch: the most images drawn at once; None for the profile's.
        steps: denoising steps; None for the catalog's.
        prefer: the preference among mixes that are equal to the best.
        draw_on: where images are drawn.
        workers: number of worker processes; None for as many as cores and memory allow.
        max_seconds: the most seconds that an image may take; None for the profile's limit, if any.
        within_s: seconds until a bundle is to be ready; None for no limit. Not for a study.
        weights: how much categories of prompts count in the score of a mix; others count 1.
        download: whether missing files of a hub repository given as `model` may be fetched.
        executor: whether workers run on this machine, or on a Ray cluster.
        address: of the Ray cluster; None starts one on this machine.
    """

    profile: str
    images: int | None
    catalog: str | None = None
    model: str | None = None
    sizes: tuple[Size, ...] = ()
    batch: int | None = None
    steps: int | None = None
    prefer: Preference = Preference.QUALITY
    draw_on: DrawOn = DrawOn.CPU
    workers: int | None = None
    max_seconds: float | None = None
    within_s: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    download: bool = True
    executor: ExecutorKind = ExecutorKind.LOCAL
    address: str | None = None
    file: FileOptions = NO_OPTIONS

    @property
    def worker_options(self) -> WorkerOptions:
        """The workers to use."""
        return WorkerOptions(self.workers, self.executor, self.address)


def bundle_request(
    options: Options, memory: str | int | None, out: Path | None, warn: Say
) -> BuildRequest:
    """The request of a build, after a check that packages, files and folders are available.

    Args:
        memory: the most memory the pipeline may take, such as "24MiB"; None for the profile's.
        out: folder of the bundle; None for engines/PROFILE.
        warn: called with warnings about a model.

    Raises:
        MissingPackageError: a package is not installed.
        InputError: an option is wrong, or `out` cannot be written.
    """
    profile = find_profile(options.profile)
    budget = _budget(memory, profile)
    folder = out or Path("engines") / profile.name
    request = _request(options, profile, budget, folder, warn)
    check_spared(_files_read(options, request.located), [folder])
    return request


def plan_request(options: Options, memory: str | int | None, warn: Say) -> BuildRequest:
    """The request of a plan; it downloads and writes nothing and needs no runtime.

    Raises:
        InputError: an option is wrong.
        SourceError: the model is a hub repository that is not on this machine.
    """
    options = replace(options, download=False)
    profile = find_profile(options.profile)
    budget, out = _budget(memory, profile), Path("engines") / profile.name
    return _request_of(options, profile, budget, out, warn)


def study_request(options: Options, budgets: Sequence[int], out: Path, warn: Say) -> BuildRequest:
    """The request of a study, with its largest budget; it draws each prompt once.

    See `bundle_request`.
    """
    request = _request(options, find_profile(options.profile), max(budgets), out, warn)
    check_spared(_files_read(options, request.located), [out / name for name in STUDY_FILES])
    return replace(request, rules=replace(request.rules, noises=1))


def _budget(memory: str | int | None, profile: Profile) -> int | None:
    budget = None if memory is None else parse_bytes(memory)
    if budget is not None and budget > profile.memory.total:
        raise InputError(
            f"{memory} of memory is more than the {format_bytes(profile.memory.total)} of "
            f"{profile.name}; give less, or another profile"
        )
    return budget


def _request(
    options: Options, profile: Profile, budget: int | None, out: Path, warn: Say
) -> BuildRequest:
    _check_writable(out)
    workers = options.worker_options
    workers.check()
    require(profile.runtime)
    require_charts()
    request = _request_of(options, profile, budget, out, warn)
    if request.latency_limit_s is not None and not request.measures_latency:
        _ = profile.stated_throughput  # without which times cannot be predicted
    return request


def _request_of(
    options: Options, profile: Profile, budget: int | None, out: Path, warn: Say
) -> BuildRequest:
    if options.model is not None and options.catalog is not None:
        raise CatalogError("give --model or --catalog, not both")
    if options.model is None and options.file.given:
        raise CatalogError(f"{', '.join(options.file.given)}: only with a --model in a single file")
    located = _located(options) if options.model is None else _adopted(options, warn)
    from sdpack.pack.request import BuildRequest

    drawn_on = drawing_runtime(options.draw_on, profile.runtime)
    request = BuildRequest(
        profile,
        located,
        out,
        budget,
        Rules(prefer=options.prefer),
        options.sizes,
        options.batch,
        options.steps,
        drawn_on,
        options.max_seconds,
        options.weights,
    )
    _check_weights(request)
    slow = request.is_large and not drawn_on.on_gpu
    usual = LARGE_BUILD_IMAGES if slow else BUILD_IMAGES
    rules = replace(request.rules, most=usual)
    if options.images is not None:
        rules = replace(rules, most=options.images, noises=MOST_NOISES)
    return replace(request, rules=rules)


def _check_weights(request: BuildRequest) -> None:
    """Check that the weights are of categories of the catalog's prompts.

    Raises:
        InputError: they are not.
        CatalogError: the prompts cannot be read.
    """
    if request.weights:
        prompts = request.located.prompt_list(request.catalog.quality.prompts)
        full_names(request.weights, [prompt.category for prompt in prompts])


def _check_writable(folder: Path) -> None:
    """Check that a folder can be written, before hours of work.

    Raises:
        InputError: the folder or the nearest existing one above it is a file or read-only.
    """
    path = folder.absolute()
    existing = next(each for each in (path, *path.parents) if os.path.lexists(each))
    if not existing.is_dir():
        raise InputError(f"{folder} cannot be written: {existing} is not a folder; choose --out")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written: {existing} is read-only; choose --out")


def _located(options: Options) -> LocatedCatalog:
    from sdpack.export.revisions import pinned

    return pinned(located_catalog(options.catalog), must=options.download)


def _adopted(options: Options, warn: Say) -> LocatedCatalog:
    from sdpack.export.adopt import Adoption, adopt

    adoption = Adoption(file=options.file)
    return adopt(str(options.model), adoption, warn=warn, download=options.download)


def _files_read(options: Options, located: LocatedCatalog) -> list[Path]:
    """The user's files that are read, and must not be overwritten."""
    named = [Path(name) for name in (options.profile, options.catalog, options.model) if name]
    beside = [path for path in options.file.files() if path.exists()]
    return [*located.files(), *(path for path in named if path.is_file()), *beside]
