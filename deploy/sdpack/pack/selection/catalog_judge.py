"""How the images of a catalog are judged: by its judge or against fp32, and by real images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from sdpack.documents.catalog import Quality
from sdpack.documents.catalog_files import LocatedCatalog
from sdpack.documents.source import Source
from sdpack.evaluate.metrics import Panel
from sdpack.evaluate.runner import Scorer
from sdpack.evaluate.scorers import Faithful, Judged
from sdpack.export.checkpoint import Checkpoint
from sdpack.pack.real_images import real_images
from sdpack.runtime.pipeline import Pictures
from sdpack.store.artifacts import digest, file_sha256, files_digest


@dataclass
class CatalogJudge:
    """The judge and the real images of a catalog, each loaded once.

    Attributes:
        folder: gives the folder of a source's files on this machine.
    """

    located: LocatedCatalog
    folder: Callable[[Source], Path]

    @property
    def _quality(self) -> Quality:
        catalog = self.located.catalog
        return catalog.quality

    @property
    def is_judged(self) -> bool:
        """Whether the catalog has a judge; if not, mixes are compared with their parts in fp32."""
        return self._quality.judge is not None

    @cached_property
    def scorer(self) -> Scorer:
        """The scorer of images."""
        if self.is_judged:
            return Judged(lambda: self.panel, self._content, self._quality.views)
        return Faithful()

    @cached_property
    def panel(self) -> Panel:
        """The catalog's judge, loaded."""
        from sdpack.evaluate.clip import panel_of

        return panel_of(self._judge, self._tokenizer)

    @property
    def has_real_images(self) -> bool:
        """Whether the catalog has real images for its prompts."""
        return self._quality.real_images is not None

    @property
    def real_content(self) -> str | None:
        """Hash of the real images; None if there are none."""
        if not self.has_real_images:
            return None
        return file_sha256(self.located.path(self._real_images))

    @cached_property
    def real_features(self) -> torch.Tensor:
        """The judge's features of the real images: float32 (images, features)."""
        return self.features(real_images(self.located, self._real_images))

    def features(self, images: Pictures) -> torch.Tensor:
        """The judge's features of images: float32 (images, features)."""
        return self.panel.features(torch.from_numpy(images))

    @property
    def _real_images(self) -> Path:
        sheet = self._quality.real_images
        assert sheet is not None
        return sheet

    @property
    def _judge(self) -> Path:
        return self._folder(self._quality.judge)

    @property
    def _tokenizer(self) -> Path:
        return self._folder(self._quality.tokenizer)

    def _folder(self, source: Source | None) -> Path:
        assert source is not None
        return self.folder(source)

    @cached_property
    def _content(self) -> str:
        judge = Checkpoint(self._judge).content
        inputs: dict[str, Any] = {"judge": judge, "tokenizer": files_digest(self._tokenizer)}
        if self._quality.views:
            inputs["views"] = [view.model_dump() for view in self._quality.views]
        return digest(inputs)
