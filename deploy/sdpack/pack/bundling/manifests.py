"""The manifest of a bundle."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdpack.documents.catalog import TextEncoder
from sdpack.documents.evidence import Evidence
from sdpack.documents.manifest import (
    Foresight,
    Manifest,
    MemoryFigures,
    Part,
    SamplingDefaults,
    Tiles,
)
from sdpack.documents.origins import Origin
from sdpack.pack.bundling.winner import Winner
from sdpack.pack.candidates import Candidates
from sdpack.pack.planning.mix import Variant
from sdpack.pack.recording.roster import TOOLS, merged_loras
from sdpack.pack.variants.graph_files import SLICED_FILE, fused_attention_graph, split_of
from sdpack.pack.variants.variant_builder import VariantBuilder
from sdpack.rewrite.onnx_file import MODEL_FILE
from sdpack.version import versions


@dataclass(frozen=True)
class Manifests:
    """Writes a winner's manifest.

    Attributes:
        foresight: where the predicted memory comes from.
    """

    winner: Winner
    candidates: Candidates
    variants: VariantBuilder
    foresight: Foresight

    def of(self, evidence: Evidence) -> Manifest:
        """The manifest.

        Args:
            evidence: why the winner was chosen.
        """
        request, fitted, mix = self.winner.request, self.winner.fitted, self.winner.mix
        return Manifest(
            name=request.out.resolve().name,
            catalog=request.catalog.name,
            profile=request.profile,
            parts={variant.role: self._part(variant) for variant in mix.variants},
            placement=fitted.placement,
            sampling=self._sampling(),
            latents=self.candidates.latents(mix.decoder.candidate),
            conditioning=self.candidates.conditioning(self.winner.denoiser),
            memory=self._memory(),
            evidence=evidence,
            tools=versions(TOOLS),
        )

    def _sampling(self) -> SamplingDefaults:
        request, sampling = self.winner.request, self.winner.sampling
        return SamplingDefaults(
            steps=self.winner.steps,
            other_steps=self.winner.other_steps,
            guidance_scale=sampling.guidance_scale,
            guidance_rescale=sampling.guidance_rescale,
            negative_prompt=sampling.negative_prompt,
            height=request.height,
            width=request.width,
            sizes=request.sizes,
            batch=request.batch,
        )

    def _part(self, variant: Variant) -> Part:
        portable = self.winner.portable(variant.role)
        candidate = self.candidates.entry(variant.role, variant.candidate)
        built = self.variants.built(variant)
        fused = fused_attention_graph(built.artifact).name
        return Part(
            candidate=variant.candidate,
            precision=variant.precision,
            tokens=candidate.tokens if isinstance(candidate, TextEncoder) else None,
            layers=self.variants.layer_counts(variant),
            fp32_nodes=tuple(sorted(built.fp32_nodes)),
            refused=tuple(sorted(built.refused)),
            source=str(candidate.source),
            licence=candidate.licence,
            bridge=self._bridge(variant),
            loras=merged_loras(candidate),
            parameters=self.candidates.parameters(variant.role, variant.candidate),
            graph=f"{portable}/{MODEL_FILE}",
            fused_attention=None if fused == MODEL_FILE else f"{portable}/{fused}",
            **self._loaded(variant),
        )

    def _loaded(self, variant: Variant) -> dict[str, Any]:
        """The fields of a part that say which graphs and plans are loaded."""
        engines = [self.winner.engine(variant, piece) for piece in self.winner.pieces(variant)]
        if len(engines) == 1:
            (whole,) = engines
            sliced = whole.graph if Path(whole.graph).name == SLICED_FILE else None
            return {"plan": whole.plan, "inputs": whole.inputs, "sliced": sliced}
        stem, tail = engines
        split = split_of(self.variants.built(variant).artifact)
        assert split is not None
        return {"tiles": Tiles(stem=stem, tail=tail, **asdict(split))}

    def _bridge(self, variant: Variant) -> Origin | None:
        bridge = self.candidates.bridge(variant)
        if bridge is None:
            return None
        return Origin(source=str(bridge.source), licence=bridge.licence)

    def _memory(self) -> MemoryFigures:
        request, fitted = self.winner.request, self.winner.fitted
        peak = fitted.peak
        return MemoryFigures(
            budget_bytes=request.budget,
            predicted_bytes=peak.bytes,
            predicted_from=self.foresight,
            weights=dict(peak.weights),
            activation_bytes=peak.activation_bytes,
            activation_role=peak.role,
            fixed_bytes=peak.fixed_bytes,
        )
