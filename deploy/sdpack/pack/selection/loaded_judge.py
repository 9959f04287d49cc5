"""One judge of a catalog, loaded on first use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sdpack.documents.quality import JudgeModel
from sdpack.documents.source import Source
from sdpack.evaluate.metrics import Panel
from sdpack.evaluate.scorers import Judged
from sdpack.export.checkpoint import Checkpoint
from sdpack.store.artifacts import digest, files_digest


@dataclass
class LoadedJudge:
    """A judge of a catalog.

    Attributes:
        model: its entry in the catalog.
        folder: gives the folder of a source's files on this machine.
    """

    model: JudgeModel
    folder: Callable[[Source], Path]

    @cached_property
    def panel(self) -> Panel:
        """The model with its tokenizer.

        Raises:
            SourceError: it cannot be loaded.
        """
        from sdpack.evaluate.clip import panel_of

        return panel_of(self.folder(self.model.source), self.folder(self.model.tokenizer))

    @cached_property
    def scorer(self) -> Judged:
        """Scores images by it."""
        return Judged(lambda: self.panel, self._content, self.model.views)

    @cached_property
    def _content(self) -> str:
        judge = Checkpoint(self.folder(self.model.source)).content
        tokenizer = files_digest(self.folder(self.model.tokenizer))
        inputs: dict[str, Any] = {"judge": judge, "tokenizer": tokenizer}
        if self.model.views:
            inputs["views"] = [view.model_dump() for view in self.model.views]
        return digest(inputs)
