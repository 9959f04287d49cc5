"""Which base a file was trained from, and what its denoiser predicts: given, told or assumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sdpack.errors import SourceError
from sdpack.export.pipeline_index import MODEL_INDEX
from sdpack.export.single_file.content import OriginalFile, empty, is_denoiser
from sdpack.export.single_file.conversion import UnfitError, convert_model
from sdpack.export.single_file.layout import SCHEDULER, Layout, base_layout, folder_layout
from sdpack.export.single_file.options import BASES, FileOptions, Prediction
from sdpack.export.single_file.recognition import guess_base, read_marks

GIVEN, TOLD, AS_FOLDER = "as given", "from its keys", "by its configs"
FLOW = "FlowMatch"  # schedulers of models that always predict the same
AMBIGUOUS = {"sd21": "sd21-base"}  # a base with the same keys
SETTINGS: Mapping[str, str] = {each.setting: each.value for each in Prediction}
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


@dataclass(frozen=True)
class ChosenLayout:
    """A layout that a file's denoiser fits, and how it was found."""

    layout: Layout
    how: str

    def __str__(self) -> str:
        if self.how == AS_FOLDER:
            return f"laid out as {self.layout.name}"
        other = AMBIGUOUS.get(self.layout.name) if self.how == TOLD else None
        more = f" (which {other} has too: say --base {other} if it is wrong)" if other else ""
        return f"base {self.layout.name}, {self.how}{more}"


def choose_layout(file: OriginalFile, options: FileOptions) -> ChosenLayout:
    """Return the first layout that a file's denoiser fits: the given base's, else the folder's.

    If it does not fit the folder's either, the layout is that of the base that its keys tell.

    Raises:
        SourceError: it fits none.
    """
    shapes = {name: shape for name, shape in file.shapes.items() if is_denoiser(name)}
    reasons = []
    for chosen in _candidates(file, options):
        layout = chosen.layout
        try:
            convert_model(
                layout.class_name(layout.denoiser), layout.configs[layout.denoiser], empty(shapes)
            )
        except UnfitError as cause:
            reasons.append(f"{file.path} does not fit {layout.name}: {cause}")
        else:
            return chosen
    if not reasons:
        reasons = [f"the keys of {file.path} tell none of {', '.join(BASES)}"]
    raise SourceError(
        f"{reasons[-1]}; say --base, or give --with FOLDER, a diffusers folder with its configs"
    )


def _candidates(file: OriginalFile, options: FileOptions) -> Iterator[ChosenLayout]:
    if options.base is not None:
        yield ChosenLayout(base_layout(options.base), GIVEN)
        return
    if options.folder is not None and (options.folder / MODEL_INDEX).is_file():
        layout = folder_layout(options.folder)
        if layout.configs.keys() >= {layout.denoiser, SCHEDULER}:
            yield ChosenLayout(layout, AS_FOLDER)
    guessed = guess_base(file)
    if guessed is not None:
        yield ChosenLayout(base_layout(guessed), TOLD)


def with_prediction(
    file: OriginalFile, chosen: ChosenLayout, prediction: Prediction | None
) -> tuple[Layout, str]:
    """Return a layout whose scheduler has the denoiser's prediction, and words about it.

    Raises:
        SourceError: a prediction was given for a model that has only one.
    """
    layout = chosen.layout
    scheduler = dict(layout.configs[SCHEDULER])
    if str(scheduler.get("_class_name", "")).startswith(FLOW):
        if prediction is not None:
            raise SourceError(
                f"{file.path}: models like {layout.name} always predict a flow; leave out "
                "--prediction"
            )
        return layout, ""
    marks = read_marks(file.shapes)
    found, how = prediction, GIVEN
    if found is None and marks.is_v:
        found, how = Prediction.V, TOLD
    if found is not None:
        scheduler["prediction_type"] = found.setting
    if marks.is_zero_snr:
        scheduler |= ZERO_SNR
    setting = str(scheduler.get("prediction_type") or Prediction.EPSILON.setting)
    used = SETTINGS.get(setting, setting)
    if found is None:
        how = "its base's" if chosen.how == GIVEN else chosen.how
    if found is None and chosen.how == TOLD:
        other = Prediction.EPSILON if used == Prediction.V else Prediction.V
        how = f"assumed: say --prediction {other} if it is wrong"
    return layout.having(SCHEDULER, scheduler), f"prediction {used} ({how})"
