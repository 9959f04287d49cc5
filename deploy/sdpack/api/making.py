"""Building, studying and quantizing, for Python programs and for the command line.

Modules that need PyTorch are imported only when a function needs them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from sdpack.api.values import (
    PathLikeText,
    as_choice,
    as_count,
    as_list,
    as_path,
    as_positive,
    as_size,
    as_text,
    as_weights,
)
from sdpack.documents.layout import LEDGER
from sdpack.documents.profile import parse_budgets
from sdpack.documents.sampling import MOST_STEPS
from sdpack.domain.precision import Runtime
from sdpack.engines.drawing import DrawOn
from sdpack.errors import InputError
from sdpack.evaluate.rules import Preference
from sdpack.export.single_file.options import Base, FileOptions, Prediction
from sdpack.pack.options import (
    MOST_WORKERS,
    STUDY_FOLDER,
    STUDY_IMAGES,
    STUDY_PROFILE,
    Options,
    bundle_request,
    study_request,
)
from sdpack.progress import Say
from sdpack.store.opening import open_store
from sdpack.units import parse_duration
from sdpack.workers.executor import USUAL_WORKERS, ExecutorKind, WorkerOptions

if TYPE_CHECKING:
    from sdpack.pack.build import BuildResult
    from sdpack.pack.request import BuildRequest
    from sdpack.pack.single_graph.request import QuantizeResult
    from sdpack.pack.study.study import FinishedStudy
    from sdpack.report.study_points import StudyResult


class BuildOptions(TypedDict, total=False):
    """The options of `build` and `study` on what is built and how it is measured.

    Attributes:
        sizes: image sizes, each a width and a height in pixels; by default the catalog's.
        batch: maximum number of images per batch; by default the profile's.
        steps: number of denoising steps; by default the catalog's.
        images: maximum number of images drawn with each mix; by default 480 in a build (80 if a
            CPU draws large images) and 64 in a study.
        prefer: "quality", "speed" or "memory": decides among mixes shown equal to the best; by
            default "quality".
        weigh: how much categories of prompts count, such as {"rendered-text": 2, "count": 0};
            others count 1.
        draw_on: where images are drawn to compare mixes: "cpu", "cuda" or "auto", which uses a GPU
            if there is one; by default "cpu".
        workers: number of worker processes; by default as many as cores and memory allow.
        executor: where they run: "local", on this machine, or "ray", on a Ray cluster; by default
            "local".
        address: of the Ray cluster; by default one is started on this machine.
        max_seconds: the most seconds that an image may take; by default the profile's limit.
        within: time limit of a build, in seconds or like "2h"; the best bundle found until then is
            written. A study takes none.
        base: the model that a single file was trained from, such as "sdxl"; by default what its
            keys tell.
        prediction: "epsilon" or "v": what a single file's denoiser predicts; by default what its
            keys tell, or its base's.
        with_folder: diffusers folder with parts, tokenizers and configs that a single file lacks.
        vae: file or folder of a VAE to use in place of a single file's.
        embeddings: files of textual inversions to add to a single file's model.
    """

    sizes: Sequence[tuple[int, int]]
    batch: int | None
    steps: int | None
    images: int
    prefer: str
    weigh: Mapping[str, float]
    draw_on: str
    workers: int | None
    executor: str
    address: str | None
    max_seconds: float | None
    within: str | float | None
    base: str | None
    prediction: str | None
    with_folder: PathLikeText | None
    vae: PathLikeText | None
    embeddings: Sequence[PathLikeText]


def build(
    *,
    profile: PathLikeText,
    memory: str | int | None = None,
    out: PathLikeText | None = None,
    catalog: PathLikeText | None = None,
    model: PathLikeText | None = None,
    progress: Say | None = None,
    **options: Unpack[BuildOptions],
) -> BuildResult:
    """Build a bundle of the best mix of parts that fits a device, as `sdpack build` does.

    Args:
        profile: name of a device profile, or path of a YAML file.
        memory: limit of the pipeline's peak memory, such as "24MiB"; by default the profile's.
        out: folder of the bundle; by default engines/PROFILE.
        catalog: name of a built-in catalog, or a YAML file or its folder; by default the zoo.
        model: diffusers folder, single file or hub repository to build instead of a catalog.
        progress: called with each progress message.
        options: see `BuildOptions`.

    Raises:
        TypeError: an option has another name.
        InputError: an argument is wrong.
        InfeasibleError: nothing fits; reports the smallest budget that would.
        MissingPackageError: a package needed for building is not installed.
        SdpackError: any other failure.
    """
    _check_names("build", options)
    checked = _options(profile, catalog, model, None, options)
    folder = None if out is None else as_path(out, "out")
    request = bundle_request(checked, memory, folder, warnings.warn)
    return build_bundle(request, progress or _silent, checked.worker_options, checked.within_s)


def study(
    *,
    budgets: str | Sequence[str | int],
    profile: PathLikeText = STUDY_PROFILE,
    out: PathLikeText = STUDY_FOLDER,
    catalog: PathLikeText | None = None,
    model: PathLikeText | None = None,
    progress: Say | None = None,
    **options: Unpack[BuildOptions],
) -> FinishedStudy:
    """Find the best mix at each of several memory budgets, as `sdpack study` does.

    Args:
        budgets: "8MiB:64MiB:8" for eight evenly spaced budgets, or a list of sizes and profile
            names.
        out: folder for the page, the charts and the points.
        profile, catalog, model, progress, options: as in `build`.

    Raises:
        TypeError: an option has another name.
        InputError: an argument is wrong.
        InfeasibleError: nothing fits even the largest budget.
        MissingPackageError: a package needed for building is not installed.
        SdpackError: any other failure.
    """
    _check_names("study", options)
    if options.get("within") is not None:
        raise InputError("within: a study has no time limit; give fewer budgets or fewer images")
    checked = _options(profile, catalog, model, STUDY_IMAGES, options)
    budget_bytes = parse_budgets(
        budgets if isinstance(budgets, str) else as_list(budgets, "budgets")
    )
    request = study_request(checked, budget_bytes, as_path(out, "out"), warnings.warn)
    studied, _ = study_budgets(request, budget_bytes, progress or _silent, checked.worker_options)
    return studied


def quantize(
    *,
    model: PathLikeText,
    precision: str,
    calibration: PathLikeText | Sequence[PathLikeText] = (),
    runtime: str = Runtime.ONNXRUNTIME_CPU.value,
    keep: str | Sequence[str] = (),
    out: PathLikeText | None = None,
    progress: Say | None = None,
) -> QuantizeResult:
    """Quantize an ONNX file, as `sdpack quantize` does.

    Args:
        model: the ONNX file.
        precision: "fp16", "bf16", "int8", "fp8", "w8", "w4", "w4:64", "w4:128", or "mixed@4.5" for
            an average of 4.5 bits per weight.
        calibration: .npz files, or folders of them: real inputs by name, one batch per file.
        runtime: target runtime of the graph.
        keep: names of layers to leave unquantized; * and ? work as in file names.
        out: ONNX file to write; by default MODEL.PRECISION.onnx beside the model.
        progress: called with each progress message.

    Raises:
        InputError: an argument or the calibration inputs are wrong.
        GraphError: the graph is missing, damaged or not valid.
        QuantizationError: it cannot be quantized.
        SdpackError: any other failure.
    """
    from sdpack.pack.single_graph.quantize import quantize as quantize_graph
    from sdpack.pack.single_graph.recipe import parse_recipe
    from sdpack.pack.single_graph.request import QuantizeRequest, default_out

    path, recipe = as_path(model, "model"), parse_recipe(as_text(precision, "precision"))
    places = as_list(calibration, "calibration", (str, PathLike))
    task = QuantizeRequest(
        path,
        recipe,
        default_out(path, recipe) if out is None else as_path(out, "out"),
        tuple(as_path(place, "calibration") for place in places),
        as_choice(Runtime, runtime, "runtime"),
        tuple(as_text(pattern, "keep") for pattern in as_list(keep, "keep", (str,))),
    )
    return quantize_graph(task, open_store(), progress or _silent)


def build_bundle(
    request: BuildRequest,
    say: Say,
    workers: WorkerOptions = USUAL_WORKERS,
    within_s: float | None = None,
) -> BuildResult:
    """Build the requested bundle and its report; checks the request before any slow work.

    Raises:
        SdpackError: as in `sdpack.pack.build.build`.
    """
    from sdpack.pack.build import build as build_mix

    def finish(folder: Path) -> None:
        from sdpack.report.build_page import write_report

        say("drawing the charts")
        write_report(folder)

    return build_mix(request, say, finish, workers, within_s)


def study_budgets(
    request: BuildRequest,
    budgets: Sequence[int],
    say: Say,
    workers: WorkerOptions = USUAL_WORKERS,
) -> tuple[FinishedStudy, StudyResult]:
    """Study the budgets, and write the page, its charts and its points into the request's folder.

    Raises:
        SdpackError: as in `sdpack.pack.study.study`.
    """
    from sdpack.pack.study.study import study as study_mixes
    from sdpack.report.study_page import PAGE, write_study

    studied = study_mixes(request, budgets, say, workers)
    say("drawing the charts")
    return studied, write_study(request.out / LEDGER, request.out / PAGE)


def _check_names(function: str, options: BuildOptions) -> None:
    """Refuse unknown options as Python refuses unknown keyword arguments."""
    for name in options:
        if name not in BuildOptions.__annotations__:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")


def _options(
    profile: PathLikeText,
    catalog: PathLikeText | None,
    model: PathLikeText | None,
    most_images: int | None,
    options: BuildOptions,
) -> Options:
    """The checked options; `most_images` is the default of `images`."""
    sizes = as_list(options.get("sizes", ()), "sizes")
    batch, steps, workers = options.get("batch"), options.get("steps"), options.get("workers")
    images = options.get("images", most_images)
    images = most_images if images is None else images
    max_seconds, within = options.get("max_seconds"), options.get("within")
    address = options.get("address")
    prefer = options.get("prefer", Preference.QUALITY.value)
    return Options(
        as_text(profile, "profile"),
        None if images is None else as_count(images, "images"),
        None if catalog is None else as_text(catalog, "catalog"),
        None if model is None else as_text(model, "model"),
        tuple(as_size(size, "sizes") for size in sizes),
        None if batch is None else as_count(batch, "batch"),
        None if steps is None else as_count(steps, "steps", most=MOST_STEPS),
        as_choice(Preference, prefer, "prefer"),
        as_choice(DrawOn, options.get("draw_on", DrawOn.CPU.value), "draw_on"),
        None if workers is None else as_count(workers, "workers", most=MOST_WORKERS),
        None if max_seconds is None else as_positive(max_seconds, "max_seconds"),
        None if within is None else _seconds(within),
        executor=as_choice(
            ExecutorKind, options.get("executor", ExecutorKind.LOCAL.value), "executor"
        ),
        address=None if address is None else as_text(address, "address"),
        file=_file_options(options),
        weights=as_weights(options.get("weigh", {}), "weigh"),
    )


def _file_options(options: BuildOptions) -> FileOptions:
    """The checked options of a model in a single file."""
    base, prediction = options.get("base"), options.get("prediction")
    folder, vae = options.get("with_folder"), options.get("vae")
    embeddings = as_list(options.get("embeddings", ()), "embeddings", (str, PathLike))
    return FileOptions(
        None if base is None else as_choice(Base, base, "base").value,
        None if prediction is None else as_choice(Prediction, prediction, "prediction"),
        None if folder is None else as_path(folder, "with_folder"),
        None if vae is None else as_path(vae, "vae"),
        tuple(as_path(path, "embeddings") for path in embeddings),
    )


def _seconds(within: str | float) -> float:
    """A duration in seconds, given as a text or a number."""
    return parse_duration(within) if isinstance(within, str) else as_positive(within, "within")


def _silent(line: str) -> None:
    pass
