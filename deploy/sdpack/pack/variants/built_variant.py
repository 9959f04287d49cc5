"""A variant as it ships."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sdpack.rewrite.onnx_file import MODEL_FILE
from sdpack.store.artifacts import Artifact


@dataclass(frozen=True)
class BuiltVariant:
    """A variant as it ships.

    Attributes:
        refused: layers that the target's compiler rejects in the variant's precision.
        fp32_nodes: nodes that compute in fp32 because fp16 overflows there.
    """

    artifact: Artifact
    refused: frozenset[str]
    fp32_nodes: frozenset[str]

    @property
    def path(self) -> Path:
        return self.artifact.path(MODEL_FILE)
