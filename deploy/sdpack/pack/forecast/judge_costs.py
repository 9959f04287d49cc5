"""What the judges of a catalog cost: downloads and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sdpack.documents.quality import JudgeModel, Quality, ReaderModel
from sdpack.documents.source import Source
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.source import remote_bytes
from sdpack.pack.selection.loaded_judge import FP32_BYTES


@dataclass(frozen=True)
class JudgeCost:
    """The cost of one judge.

    Attributes:
        name: its key in the catalog.
        decides: whether its scores decide the race.
        licence: empty if the catalog does not state it.
        parameters: None if its checkpoint is not here, or it has no weights of its own.
        memory_bytes: of its weights while it scores; None if unknown.
        fetch_bytes: size of its download; None if that is unknown.
    """

    name: str
    decides: bool
    licence: str
    parameters: int | None
    memory_bytes: int | None
    fetch_bytes: int | None


def judge_costs(
    quality: Quality, is_here: Callable[[Source], bool], folder: Callable[[Source], Path]
) -> Iterator[JudgeCost]:
    """Yield the cost of each judge, without downloading anything; the one that decides first.

    Args:
        is_here: whether all files of a source are on this machine.
        folder: gives the folder of such a source.
    """
    for name, model in quality.judges.items():
        yield _cost(name, model, name == "judge", is_here, folder)
    for name, other in quality.other_judges.items():
        if isinstance(other, ReaderModel):
            yield JudgeCost(f"other_judges.{name}", False, other.licence, None, None, 0)


def _cost(
    name: str,
    model: JudgeModel,
    decides: bool,
    is_here: Callable[[Source], bool],
    folder: Callable[[Source], Path],
) -> JudgeCost:
    if not is_here(model.source):
        return JudgeCost(name, decides, model.licence, None, None, remote_bytes(model.source))
    checkpoint = Checkpoint(folder(model.source))
    parameters = checkpoint.stored_numbers
    memory = FP32_BYTES * parameters
    return JudgeCost(name, decides, model.licence, parameters, memory, 0)
