"""The fp32 graphs that variants are made from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from sdpack.domain.placement import Role
from sdpack.export import graph as graphs
from sdpack.export.bridge import load_bridge
from sdpack.export.checkpoint import Checkpoint
from sdpack.pack.candidates import Candidates
from sdpack.pack.planning.mix import Variant
from sdpack.pack.variants.graph_files import write_fused_attention
from sdpack.pack.variants.tokenizers import Tokenizers
from sdpack.progress import Say
from sdpack.rewrite.onnx_file import MODEL_FILE, read
from sdpack.store.artifacts import REVISION, Artifact, Store, files_digest
from sdpack.version import versions

KIND = "graph"
FP32_BYTES = 4  # of a parameter in an exported graph
EXPORTERS = ("torch", "diffusers", "transformers", "onnxscript", "onnx-ir")


@dataclass
class SourceGraphs:
    """Exports the candidates of a request to ONNX, each once."""

    candidates: Candidates
    tokenizers: Tokenizers
    store: Store
    say: Say
    _exported: dict[tuple[Role, str, str | None], Artifact] = field(
        default_factory=dict, init=False
    )

    def of(self, variant: Variant) -> Artifact:
        """The fp32 graph of a variant's candidate, including its bridge."""
        key = (variant.role, variant.candidate, variant.partner)
        if key not in self._exported:
            self._exported[key] = self._export(variant)
        return self._exported[key]

    def has(self, variant: Variant) -> bool:
        """Whether that graph was exported already."""
        return self.store.find(KIND, self._inputs(variant)) is not None

    def path(self, variant: Variant) -> Path:
        """The ONNX file of that graph."""
        return self.of(variant).path(MODEL_FILE)

    def model(self, variant: Variant) -> ir.Model:
        """That graph, read again at each call."""
        return read(self.path(variant))

    @property
    def largest_bytes(self) -> int:
        """Size of the largest graph exported so far; 1 if there is none."""
        return max((graph.bytes for graph in self._exported.values()), default=1)

    def _export(self, variant: Variant) -> Artifact:
        checkpoint = self.candidates.checkpoint(variant.role, variant.candidate)
        bridge = self._bridge_folder(variant)

        def build(folder: Path) -> None:
            doing = f"exporting {variant.part_name}"
            self.say(doing)
            self.store.check_space(FP32_BYTES * checkpoint.parameters, doing)
            exported = graphs.export_made(lambda: self._part(checkpoint, variant, bridge), folder)
            (folder / "export.json").write_text(json.dumps({"errors": exported.errors}, indent=1))
            write_fused_attention(folder)

        return self.store.make(KIND, self._inputs(variant), build)

    def _inputs(self, variant: Variant) -> dict[str, Any]:
        """Everything that determines a graph."""
        bridge = self._bridge_folder(variant)
        return {
            "role": variant.role,
            "checkpoint": self.candidates.checkpoint(variant.role, variant.candidate).content,
            "bridge": None if bridge is None else files_digest(bridge),
            "asked": self._settings(variant),
            "tools": versions(EXPORTERS),
            "revision": REVISION,
        }

    def _bridge_folder(self, variant: Variant) -> Path | None:
        bridge = self.candidates.bridge(variant)
        return None if bridge is None else self.candidates.folder(bridge.source)

    def _settings(self, variant: Variant) -> dict[str, Any]:
        """The settings that determine a graph, in addition to its checkpoint."""
        if not variant.role.encodes_text:
            return {}
        return {
            "voice": asdict(self.candidates.encoder_outputs(variant)),
            "clip_skip": self.candidates.text_encoder(variant.candidate).clip_skip,
            "tokens": self.tokenizers.length(variant.candidate),
        }

    def _part(
        self, checkpoint: Checkpoint, variant: Variant, bridge: Path | None
    ) -> graphs.ExportablePart:
        from sdpack.export.decoder import DecoderPart
        from sdpack.export.denoiser import DenoiserPart
        from sdpack.export.text_encoder import TextEncoderPart

        model = checkpoint.load()
        if variant.role.encodes_text:
            return TextEncoderPart(
                model,
                None if bridge is None else load_bridge(bridge),
                self.candidates.encoder_outputs(variant),
                self.tokenizers.length(variant.candidate),
                self.candidates.text_encoder(variant.candidate).clip_skip,
            )
        if variant.role is Role.DECODER:
            return DecoderPart(model)
        return DenoiserPart(model, self.candidates.conditioning(variant.candidate))
