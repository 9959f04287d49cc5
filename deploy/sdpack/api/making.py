"""Building, studying and quantizing, for Python programs and for the command line.

Whatever needs PyTorch is imported when it is called for.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from sdpack.api.values import PathLikeText, as_choice, as_count, as_list, as_path, as_size, as_text
from sdpack.documents.catalog import MOST_STEPS
from sdpack.documents.layout import LEDGER
from sdpack.documents.profile import parse_budgets
from sdpack.domain.precision import Runtime
from sdpack.evaluate.rules import Preference
from sdpack.pack.options import (
    BUILD_IMAGES,
    STUDY_FOLDER,
    STUDY_IMAGES,
    STUDY_PROFILE,
    Options,
    bundle_request,
    study_request,
)
from sdpack.progress import Say
from sdpack.store.artifacts import Store, cache_folder

if TYPE_CHECKING:
    from sdpack.pack.build import BuildResult
    from sdpack.pack.request import BuildRequest
    from sdpack.pack.single_graph.request import QuantizeResult
    from sdpack.pack.study.study import Studied
    from sdpack.report.study_points import StudyResult


def build(
    *,
    profile: PathLikeText,
    memory: str | int | None = None,
    out: PathLikeText | None = None,
    catalog: PathLikeText | None = None,
    model: PathLikeText | None = None,
    sizes: Sequence[tuple[int, int]] = (),
    batch: int | None = None,
    steps: int | None = None,
    images: int = BUILD_IMAGES,
    prefer: str = Preference.QUALITY.value,
    progress: Say | None = None,
) -> BuildResult:
    """Build the bundle of the best mix of parts that fits a device, as `sdpack build` does.

    Args:
        profile: name of a device profile, or path of a YAML file.
        memory: that the pipeline may take at its peak, such as "24MiB"; by default the profile's.
        out: folder of the bundle; by default engines/PROFILE.
        catalog: a built-in catalog's name, a YAML file or its folder; by default the zoo.
        model: diffusers folder or hub repository to build instead of a catalog.
        sizes: of pictures, each a width and a height in pixels; by default the catalog's.
        batch: pictures drawn at once, at most; by default the profile's.
        steps: of denoising; by default the catalog's.
        images: drawn with each mix, at most.
        prefer: "quality", "speed" or "memory": what decides among mixes shown equal to the best.
        progress: called with a line on what is being done.

    Raises:
        InputError: an argument is wrong.
        InfeasibleError: nothing fits; has the smallest budget that would do.
        MissingPackageError: something that builds is not installed.
        SdpackError: anything else that failed, in one line.
    """
    options = _options(
        profile=profile,
        images=images,
        catalog=catalog,
        model=model,
        sizes=sizes,
        batch=batch,
        steps=steps,
        prefer=prefer,
    )
    folder = None if out is None else as_path(out, "out")
    return build_bundle(bundle_request(options, memory, folder, warnings.warn), progress or _unsaid)


def study(
    *,
    budgets: str | Sequence[str | int],
    profile: PathLikeText = STUDY_PROFILE,
    out: PathLikeText = STUDY_FOLDER,
    catalog: PathLikeText | None = None,
    model: PathLikeText | None = None,
    sizes: Sequence[tuple[int, int]] = (),
    batch: int | None = None,
    steps: int | None = None,
    images: int = STUDY_IMAGES,
    prefer: str = Preference.QUALITY.value,
    progress: Say | None = None,
) -> Studied:
    """Find the best mix at each of several memory budgets, as `sdpack study` does.

    Args:
        budgets: "8MiB:64MiB:8" for eight from the first to the last, or a list of sizes and of
            names of profiles.
        out: folder of the page, the charts and the points.
        profile, catalog, model, sizes, batch, steps, images, prefer, progress: as of `build`.

    Raises:
        InputError: an argument is wrong.
        InfeasibleError: nothing fits even the largest budget.
        MissingPackageError: something that builds is not installed.
        SdpackError: anything else that failed, in one line.
    """
    options = _options(
        profile=profile,
        images=images,
        catalog=catalog,
        model=model,
        sizes=sizes,
        batch=batch,
        steps=steps,
        prefer=prefer,
    )
    asked = parse_budgets(budgets if isinstance(budgets, str) else as_list(budgets, "budgets"))
    request = study_request(options, asked, as_path(out, "out"), warnings.warn)
    studied, _ = study_budgets(request, asked, progress or _unsaid)
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
        precision: "fp16", "bf16", "int8", "fp8", "w8", "w4", "w4:64", "w4:128" or, for bits a
            number, "mixed@4.5".
        calibration: .npz files, or folders of them: real inputs, a batch a file, by name.
        runtime: that the graph is for.
        keep: names of layers to leave unquantized, with * and ? as in file names.
        out: ONNX file to write; by default beside the model, as MODEL.PRECISION.onnx.
        progress: called with a line on what is being done.

    Raises:
        InputError: an argument or the calibration inputs are wrong.
        GraphError: the graph is missing, damaged or not valid.
        QuantizationError: it cannot be quantized.
        SdpackError: anything else that failed, in one line.
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
    return quantize_graph(task, Store(cache_folder() / "store"), progress or _unsaid)


def build_bundle(request: BuildRequest, say: Say) -> BuildResult:
    """Build the bundle a request asks for, with its report; refused before anything slow if it can.

    Raises:
        SdpackError: as of `sdpack.pack.build.build`.
    """
    from sdpack.pack.build import build as build_mix
    from sdpack.report.build_page import write_report

    def finish(folder: Path) -> None:
        say("drawing the charts")
        write_report(folder)

    return build_mix(request, say, finish)


def study_budgets(
    request: BuildRequest, budgets: Sequence[int], say: Say
) -> tuple[Studied, StudyResult]:
    """Study a request's budgets; writes the page, its charts and points into the request's folder.

    Raises:
        SdpackError: as of `sdpack.pack.study.study`.
    """
    from sdpack.pack.study.study import study as study_mixes
    from sdpack.report.study_page import PAGE, write_study

    studied = study_mixes(request, budgets, say)
    say("drawing the charts")
    return studied, write_study(request.out / LEDGER, request.out / PAGE)


def _options(
    *,
    profile: PathLikeText,
    images: int,
    catalog: PathLikeText | None,
    model: PathLikeText | None,
    sizes: Sequence[tuple[int, int]],
    batch: int | None,
    steps: int | None,
    prefer: str,
) -> Options:
    return Options(
        as_text(profile, "profile"),
        as_count(images, "images"),
        None if catalog is None else as_text(catalog, "catalog"),
        None if model is None else as_text(model, "model"),
        tuple(as_size(size, "sizes") for size in as_list(sizes, "sizes")),
        None if batch is None else as_count(batch, "batch"),
        None if steps is None else as_count(steps, "steps", most=MOST_STEPS),
        as_choice(Preference, prefer, "prefer"),
    )


def _unsaid(line: str) -> None:
    pass
