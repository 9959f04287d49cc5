"""Where the files of a checkpoint are."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from sdpack.documents.document import Document


class Source(Document):
    """Location of a checkpoint: a folder, or a revision of a hub repository.

    Without a revision, the current one is taken at the first build, and locked.

    Attributes:
        allow_pickle: accept weights that exist only as a pickle; only tensors are read from it.
    """

    path: Path | None = None
    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    subfolder: str = ""
    allow_pickle: bool = False

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Source:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give either path or hub")
        if self.path is not None and (self.revision or self.subfolder):
            raise ValueError("revision and subfolder belong to hub, not to path")
        return self

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        revision = "unpinned" if self.revision is None else self.revision[:12]
        return f"{self.hub}@{revision}" + (self.subfolder and f"/{self.subfolder}")
