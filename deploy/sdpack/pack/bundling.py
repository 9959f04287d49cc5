"""The winner of a build as a bundle."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from sdpack.documents.bundle import write_bundle
from sdpack.documents.catalog import TextEncoder
from sdpack.documents.conditioning import Family
from sdpack.documents.evidence import Estimated, Evidence, Screening, SelectionRule, StandingFigures
from sdpack.documents.layout import (
    CONTACT_SHEET,
    ENGINES,
    LEDGER,
    ONNX,
    SAMPLES,
    plan_name,
    portable_name,
    sampler_name,
    tokenizer_name,
)
from sdpack.documents.manifest import (
    Engine,
    Manifest,
    MemoryFigures,
    Origin,
    Part,
    SamplingDefaults,
    Tiles,
)
from sdpack.domain.estimate import Estimate
from sdpack.domain.placement import Role
from sdpack.domain.precision import Runtime
from sdpack.domain.tiles import HEAD_FILE, TAIL_FILE
from sdpack.engines.tensorrt_builder import PLAN_FILE
from sdpack.errors import SchedulerError
from sdpack.evaluate.rules import Fate, Outcome, Standing
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.planning.mix import Variant
from sdpack.pack.recording import TOOLS, Recording
from sdpack.pack.request import BuildRequest
from sdpack.pack.selection.mix_evaluator import FEWEST_FOR_KID, MixEvaluator
from sdpack.pack.selection.selection import SelectionResult
from sdpack.pack.variants.shapes import Piece
from sdpack.pack.variants.source_graphs import (
    SLICED_FILE,
    SPLIT_FILE,
    fused_attention_graph,
    split_of,
    versions,
)
from sdpack.pack.variants.variant_builder import VariantBuilder
from sdpack.rewrite.onnx_file import MODEL_FILE

LISTED = 10  # standings whose latency is measured
OTHER_STEPS = (1, 2, 4, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50)
PIPELINES = {
    Family.SD: "StableDiffusionPipeline",
    Family.SDXL: "StableDiffusionXLPipeline",
    Family.SD3: "StableDiffusion3Pipeline",
    Family.PIXART: "PixArtSigmaPipeline",
    Family.FLUX: "FluxPipeline",
}


@dataclass(frozen=True)
class Bundling:
    """Writes the winner of a finished race."""

    evaluator: MixEvaluator
    selected: SelectionResult
    footprints: Footprints

    @property
    def builder(self) -> VariantBuilder:
        return self.evaluator.builder

    @property
    def request(self) -> BuildRequest:
        return self.builder.request

    @property
    def outcome(self) -> Outcome:
        return self.selected.outcome

    @property
    def winner(self) -> Fitted:
        return self.evaluator.fitted[self.outcome.winner]

    @property
    def denoiser(self) -> str:
        """The winner's."""
        return self.winner.mix.denoiser.candidate

    def write(self, finish: Callable[[Path], None] | None = None) -> Manifest:
        """The bundle in the order's folder; returns its manifest.

        Args:
            finish: as of `write_bundle`.
        """
        manifest = self._manifest()
        recording = Recording(self.evaluator, self.selected, self.footprints)
        kept = recording.record(manifest)

        def fill(folder: Path) -> None:
            self._fill(folder)
            kept.write(folder / LEDGER)
            recording.write_contact_sheet(folder / CONTACT_SHEET)

        return write_bundle(self.request.out, manifest, fill, finish)

    def _manifest(self) -> Manifest:
        catalog, profile = self.request.located.catalog, self.request.profile
        sampling = self.request.sampling_of(self.denoiser)
        return Manifest(
            name=self.request.out.resolve().name,
            catalog=catalog.name,
            profile=profile,
            parts={variant.role: self._part(variant) for variant in self.winner.mix.variants},
            placement=self.winner.placement,
            sampling=SamplingDefaults(
                steps=sampling.steps,
                other_steps=self._other_steps,
                guidance_scale=sampling.guidance_scale,
                guidance_rescale=sampling.guidance_rescale,
                negative_prompt=sampling.negative_prompt,
                height=self.request.height,
                width=self.request.width,
                sizes=self.request.sizes,
                batch=self.request.batch,
            ),
            latents=self.builder.latents(self.winner.mix.decoder.candidate),
            conditioning=self.request.conditioning(self.denoiser),
            memory=self._memory(),
            evidence=self._evidence(),
            tools=versions(TOOLS),
        )

    def _part(self, variant: Variant) -> Part:
        candidate = self.request.located.catalog.candidates(variant.role)[variant.candidate]
        made = self.builder.made(variant)
        return Part(
            candidate=variant.candidate,
            precision=variant.precision,
            tokens=candidate.tokens if isinstance(candidate, TextEncoder) else None,
            layers=self.builder.stored(variant),
            islands=tuple(sorted(made.fp32_nodes)),
            refused=tuple(sorted(made.refused)),
            source=str(candidate.source),
            licence=candidate.licence,
            bridge=self._bridge(variant),
            parameters=self.builder.checkpoint(variant.role, variant.candidate).parameters,
            graph=f"{self._portable(variant.role)}/{MODEL_FILE}",
            attending=self._attending(variant),
            **self._loaded(variant),
        )

    def _loaded(self, variant: Variant) -> dict[str, Any]:
        """The fields of a part that say what is loaded."""
        engines = [self._engine(variant, piece) for piece in self._pieces(variant)]
        if len(engines) == 1:
            (whole,) = engines
            sliced = whole.graph if Path(whole.graph).name == SLICED_FILE else None
            return {"plan": whole.plan, "inputs": whole.inputs, "sliced": sliced}
        head, tail = engines
        split = split_of(self.builder.made(variant).artifact)
        assert split is not None
        return {"tiles": Tiles(head=head, tail=tail, **asdict(split))}

    def _pieces(self, variant: Variant) -> tuple[Piece, ...]:
        return self.builder.pieces(variant, self.winner.placement)

    def _engine(self, variant: Variant, piece: Piece) -> Engine:
        graph = f"{self._portable(variant.role)}/{piece.file}"
        planned = self.request.profile.runtime is Runtime.TENSORRT_RTX
        return Engine(
            graph=graph,
            plan=plan_name(variant.role, graph) if planned else None,
            inputs=piece.ranges,
        )

    def _bridge(self, variant: Variant) -> Origin | None:
        bridge = self.builder.bridge(variant)
        if bridge is None:
            return None
        return Origin(source=str(bridge.source), licence=bridge.licence)

    def _memory(self) -> MemoryFigures:
        peak = self.winner.peak
        return MemoryFigures(
            budget_bytes=self.request.budget,
            predicted_bytes=peak.bytes,
            predicted_from=self.footprints.foresight,
            weights=dict(peak.weights),
            activation_bytes=peak.activation_bytes,
            activation_role=peak.role,
            fixed_bytes=peak.fixed_bytes,
        )

    def _evidence(self) -> Evidence:
        number = self.outcome.winner
        seen = next(s.prompts for s in self.outcome.standings if s.arm == number)
        return Evidence(
            metric=self.evaluator.metric,
            measured_on=self.evaluator.measured_on,
            quality=_estimated(self.evaluator.quality(number, seen), seen),
            kid=self._distance(number, seen) if self._has_distance(seen) else None,
            tiled_difference=self.evaluator.tiled_difference(number),
            mixes=len(self.evaluator.fitted),
            pictures=self.selected.pictures,
            rule=self._rule(),
            screening=self._screening(),
            standings=tuple(
                self._standing(s, place < LISTED) for place, s in enumerate(self._ranked())
            ),
        )

    def _rule(self) -> SelectionRule:
        rules = self.evaluator.rules
        return SelectionRule(
            prefer=rules.prefer.value,
            basis=self.outcome.basis.value,
            confidence=rules.confidence,
            indifference=rules.indifference,
            prompts=rules.most,
        )

    def _has_distance(self, seen: int) -> bool:
        return seen >= FEWEST_FOR_KID and self.evaluator.has_real_pictures

    def _distance(self, number: int, seen: int) -> Estimated:
        return _estimated(self.evaluator.distance(number, seen), seen)

    def _screening(self) -> Screening | None:
        screened = self.selected.screened
        if screened is None:
            return None
        left = set(screened.left)
        out = {
            str(fitted.mix): round(float(screened.foretold[number]), 6)
            for number, fitted in enumerate(self.evaluator.fitted)
            if number not in left
        }
        return Screening(error=screened.error, checked=screened.checked, foretold=out)

    def _ranked(self) -> list[Standing]:
        """The winner, then the others, those first that drew better on the prompts both had."""
        return sorted(self.outcome.standings, key=lambda s: (s.fate is not Fate.WON, -s.difference))

    def _standing(self, standing: Standing, listed: bool) -> StandingFigures:
        timed = listed and standing.fate is not Fate.BROKEN
        fitted = self.evaluator.fitted[standing.arm]
        quality = self.evaluator.quality(standing.arm, standing.prompts)
        return StandingFigures(
            mix=str(fitted.mix),
            placement=str(fitted.placement),
            peak_bytes=fitted.peak.bytes,
            size_bytes=fitted.size_bytes,
            weights={v.role: self._weight_bytes(fitted, v) for v in fitted.mix.variants},
            fate=standing.fate.value,
            lost_to=str(self.evaluator.fitted[standing.to].mix),
            quality=_estimated(quality, standing.prompts),
            difference=standing.difference,
            low=_finite(standing.low),
            high=_finite(standing.high),
            latency_s=self.evaluator.latency_s(standing.arm) if timed else None,
        )

    def _weight_bytes(self, fitted: Fitted, variant: Variant) -> int:
        return self.footprints.of(variant, fitted.placement).weight_bytes

    def _attending(self, variant: Variant) -> str | None:
        name = fused_attention_graph(self.builder.made(variant).artifact).name
        return None if name == MODEL_FILE else f"{self._portable(variant.role)}/{name}"

    def _portable(self, role: Role) -> str:
        """The folder of a role's portable graph in the bundle."""
        denoiser = self.builder.checkpoint(Role.DENOISER, self.denoiser)
        return f"{ONNX}/{portable_name(role, denoiser.class_name)}"

    def _fill(self, folder: Path) -> None:
        for variant in self.winner.mix.variants:
            self._fill_part(folder, variant)
            if variant.role.encodes_text:
                tokenizer = self.builder.tokenizer_folder(variant.candidate)
                shutil.copytree(tokenizer, folder / tokenizer_name(variant.role))
        sampling = self.request.sampling_of(self.denoiser)
        scheduler = self.request.folder(sampling.scheduler)
        shutil.copytree(scheduler, folder / ONNX / "scheduler")
        (folder / ONNX / "model_index.json").write_text(self._index(scheduler))
        self._write_samplers(folder)
        samples = self.evaluator.samples(self.outcome.winner)
        Image.fromarray(samples).save(folder / SAMPLES, optimize=True)

    def _write_samplers(self, folder: Path) -> None:
        """A table for each number of steps, and more where a schedule depends on the size."""
        rows = self.request.latent_sizes(Role.DENOISER, self.denoiser)
        for steps in (None, *self._other_steps):
            usual = self.builder.sampler(self.denoiser, steps=steps).to_json()
            (folder / sampler_name(steps=steps)).write_text(json.dumps(usual) + "\n")
            for size, latents in zip(self.request.sizes, rows, strict=True):
                table = self.builder.sampler(self.denoiser, latents, steps).to_json()
                if table != usual:
                    (folder / sampler_name(size, steps)).write_text(json.dumps(table) + "\n")

    @cached_property
    def _other_steps(self) -> tuple[int, ...]:
        """Numbers of steps the scheduler can do besides those that are measured."""
        own = self.request.sampling_of(self.denoiser).steps
        return tuple(steps for steps in OTHER_STEPS if steps != own and self._can_do(steps))

    def _can_do(self, steps: int) -> bool:
        try:
            self.builder.sampler(self.denoiser, steps=steps)
        except SchedulerError:
            return False
        return True

    def _index(self, scheduler: Path) -> str:
        """What optimum's ONNX Runtime pipelines read first: the class of each part."""
        config = json.loads((scheduler / "scheduler_config.json").read_text())
        family = self.request.conditioning(self.denoiser).family
        index: dict[str, Any] = {
            "_class_name": PIPELINES[family],
            "_diffusers_version": versions(("diffusers",))["diffusers"],
            "scheduler": ["diffusers", config["_class_name"]],
        }
        if family is Family.SD:
            index |= {
                "feature_extractor": [None, None],
                "requires_safety_checker": False,
                "safety_checker": [None, None],
            }
        for variant in self.winner.mix.variants:
            role = variant.role
            library = "transformers" if role.encodes_text else "diffusers"
            name = Path(self._portable(role)).name.removesuffix("_decoder")
            named = self.builder.checkpoint(role, variant.candidate).class_name
            index[name] = [library, named]
            if role.encodes_text:
                tokenizer = Path(tokenizer_name(role)).name
                index[tokenizer] = ["transformers", "PreTrainedTokenizerFast"]
        return json.dumps(index, indent=1, sort_keys=True) + "\n"

    def _fill_part(self, folder: Path, variant: Variant) -> None:
        target = folder / self._portable(variant.role)
        target.mkdir(parents=True)
        made = self.builder.made(variant).artifact
        self.builder.store.check(made)
        used = {piece.file for piece in self._pieces(variant)}
        unused = {HEAD_FILE, TAIL_FILE, SPLIT_FILE, SLICED_FILE} - used
        for name in set(made.files) - unused:
            shutil.copyfile(made.path(name), target / name)
        checkpoint = self.builder.checkpoint(variant.role, variant.candidate)
        shutil.copyfile(checkpoint.folder / "config.json", target / "config.json")
        for piece in self._pieces(variant):
            plan = self._engine(variant, piece).plan
            if plan is not None:
                (folder / ENGINES).mkdir(exist_ok=True)
                built = self.builder.plan_artifact(variant, piece)
                self.builder.store.check(built)
                shutil.copyfile(built.path(PLAN_FILE), folder / plan)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _estimated(estimate: Estimate, pictures: int) -> Estimated:
    return Estimated(value=estimate.value, low=estimate.low, high=estimate.high, pictures=pictures)
