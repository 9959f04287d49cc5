"""The winner of a build as a bundle."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from sdpack.bundle import (
    ENGINES,
    ONNX,
    PORTABLE,
    SAMPLER,
    SAMPLES,
    Estimated,
    Evidence,
    InputSizes,
    LatentSpace,
    Manifest,
    MemoryFigures,
    Origin,
    Part,
    PlacementFigures,
    Sampling,
    Screening,
    StandingFigures,
    plan_name,
    write_bundle,
)
from sdpack.engines.tensorrt_builder import PLAN_FILE
from sdpack.evaluate.metrics import Estimate
from sdpack.evaluate.race import Fate, Outcome, Standing
from sdpack.pack.contest import FEWEST_FOR_KID, Contest, Settled
from sdpack.pack.fit import Fitted
from sdpack.pack.footprints import Footprints
from sdpack.pack.mix import Variant
from sdpack.pack.order import Order
from sdpack.pack.sources import EXPORTERS, versions
from sdpack.pack.workshop import QUANTIZERS, Workshop
from sdpack.placement import Role
from sdpack.precision import Runtime

LISTED = 10  # standings whose latency is measured
TOOLS = (*EXPORTERS, *QUANTIZERS, "tensorrt_rtx_cu13", "sdpack")


@dataclass(frozen=True)
class Bundling:
    """Writes the winner of a finished race."""

    contest: Contest
    settled: Settled
    footprints: Footprints

    @property
    def workshop(self) -> Workshop:
        return self.contest.workshop

    @property
    def order(self) -> Order:
        return self.workshop.order

    @property
    def outcome(self) -> Outcome:
        return self.settled.outcome

    @property
    def winner(self) -> Fitted:
        return self.contest.fitted[self.outcome.winner]

    def write(self) -> Manifest:
        """The bundle in the order's folder; returns its manifest."""
        return write_bundle(self.order.out, self._manifest(), self._fill)

    def _manifest(self) -> Manifest:
        catalog, profile = self.order.located.catalog, self.order.profile
        space = self.workshop.latents(self.winner.mix.decoder.candidate)
        return Manifest(
            name=self.order.out.name,
            catalog=catalog.name,
            profile=profile,
            parts={role: self._part(self.winner.mix.variant(role)) for role in Role},
            placement=PlacementFigures.of(self.winner.placement),
            sampling=Sampling(
                steps=catalog.sampling.steps,
                guidance_scale=catalog.sampling.guidance_scale,
                negative_prompt=catalog.sampling.negative_prompt,
                height=self.order.height,
                width=self.order.width,
                batch=profile.shapes.batch,
            ),
            latents=LatentSpace(**asdict(space)),
            memory=self._memory(),
            evidence=self._evidence(),
            tools=versions(TOOLS),
        )

    def _part(self, variant: Variant) -> Part:
        candidate = self.order.located.catalog.candidates(variant.role)[variant.candidate]
        made = self.workshop.made(variant)
        return Part(
            candidate=variant.candidate,
            precision=variant.precision,
            layers=self.workshop.stored(variant),
            islands=tuple(sorted(made.islands)),
            refused=tuple(sorted(made.refused)),
            source=str(candidate.source),
            licence=candidate.licence,
            bridge=self._bridge(variant),
            parameters=self.workshop.checkpoint(variant.role, variant.candidate).parameters,
            graph=f"{ONNX}/{PORTABLE[variant.role]}/model.onnx",
            plan=self._plan_name(variant.role),
            inputs=self._inputs(variant),
        )

    def _bridge(self, variant: Variant) -> Origin | None:
        bridge = self.workshop.bridge(variant)
        if bridge is None:
            return None
        return Origin(source=str(bridge.source), licence=bridge.licence)

    def _inputs(self, variant: Variant) -> dict[str, InputSizes]:
        ranges = self.workshop.shapes.ranges(variant, self.winner.placement)
        return {name: InputSizes(**asdict(given)) for name, given in ranges.items()}

    def _plan_name(self, role: Role) -> str | None:
        if self.order.profile.runtime is not Runtime.TENSORRT_RTX:
            return None
        return plan_name(role)

    def _memory(self) -> MemoryFigures:
        peak = self.winner.peak
        return MemoryFigures(
            budget_bytes=self.order.budget,
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
            metric="judge similarity",
            measured_on=self.contest.measured_on,
            quality=_estimated(self.contest.quality(number, seen), seen),
            kid=None if seen < FEWEST_FOR_KID else self._distance(number, seen),
            mixes=len(self.contest.fitted),
            pictures=self.settled.pictures,
            screening=self._screening(),
            standings=tuple(
                self._standing(s, place < LISTED) for place, s in enumerate(self._ranked())
            ),
        )

    def _distance(self, number: int, seen: int) -> Estimated:
        return _estimated(self.contest.distance(number, seen), seen)

    def _screening(self) -> Screening | None:
        screened = self.settled.screened
        if screened is None:
            return None
        left = set(screened.left)
        out = {
            str(fitted.mix): round(float(screened.foretold[number]), 6)
            for number, fitted in enumerate(self.contest.fitted)
            if number not in left
        }
        return Screening(error=screened.error, checked=screened.checked, foretold=out)

    def _ranked(self) -> list[Standing]:
        """The winner, then the others, those first that drew better on the prompts both had."""
        return sorted(self.outcome.standings, key=lambda s: (s.fate is not Fate.WON, -s.difference))

    def _standing(self, standing: Standing, listed: bool) -> StandingFigures:
        timed = listed and standing.fate is not Fate.BROKEN
        fitted = self.contest.fitted[standing.arm]
        quality = self.contest.quality(standing.arm, standing.prompts)
        return StandingFigures(
            mix=str(fitted.mix),
            placement=str(fitted.placement),
            peak_bytes=fitted.peak.bytes,
            size_bytes=fitted.size_bytes,
            weights={r: self._weight_bytes(fitted, r) for r in Role},
            fate=standing.fate.value,
            lost_to=str(self.contest.fitted[standing.to].mix),
            quality=_estimated(quality, standing.prompts),
            difference=standing.difference,
            low=_finite(standing.low),
            high=_finite(standing.high),
            latency_s=self.contest.latency_s(standing.arm) if timed else None,
        )

    def _weight_bytes(self, fitted: Fitted, role: Role) -> int:
        return self.footprints.of(fitted.mix.variant(role), fitted.placement).weight_bytes

    def _fill(self, folder: Path) -> None:
        for role in Role:
            self._fill_part(folder, self.winner.mix.variant(role))
        encoder = self.winner.mix.text_encoder.candidate
        shutil.copytree(self.workshop.tokenizer_folder(encoder), folder / ONNX / "tokenizer")
        scheduler = self.order.folder(self.order.located.catalog.sampling.scheduler)
        shutil.copytree(scheduler, folder / ONNX / "scheduler")
        (folder / ONNX / "model_index.json").write_text(self._index(scheduler))
        table = json.dumps(self.workshop.sampler.to_json())
        (folder / SAMPLER).write_text(table + "\n")
        samples = self.contest.samples(self.outcome.winner)
        Image.fromarray(samples).save(folder / SAMPLES, optimize=True)

    def _index(self, scheduler: Path) -> str:
        """What optimum's ONNX Runtime pipelines read first: the class of each part."""

        def named(role: Role) -> str:
            variant = self.winner.mix.variant(role)
            return self.workshop.checkpoint(role, variant.candidate).class_name

        config = json.loads((scheduler / "scheduler_config.json").read_text())
        index = {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": versions(("diffusers",))["diffusers"],
            "feature_extractor": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", config["_class_name"]],
            "text_encoder": ["transformers", named(Role.TEXT_ENCODER)],
            "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
            "unet": ["diffusers", named(Role.DENOISER)],
            "vae": ["diffusers", named(Role.DECODER)],
        }
        return json.dumps(index, indent=1) + "\n"

    def _fill_part(self, folder: Path, variant: Variant) -> None:
        target = folder / ONNX / PORTABLE[variant.role]
        target.mkdir(parents=True)
        made = self.workshop.made(variant).artifact
        self.workshop.store.check(made)
        for name in made.files:
            shutil.copyfile(made.path(name), target / name)
        checkpoint = self.workshop.checkpoint(variant.role, variant.candidate)
        shutil.copyfile(checkpoint.folder / "config.json", target / "config.json")
        plan = self._plan_name(variant.role)
        if plan is not None:
            (folder / ENGINES).mkdir(exist_ok=True)
            built = self.workshop.plan_artifact(variant, self.winner.placement)
            self.workshop.store.check(built)
            shutil.copyfile(built.path(PLAN_FILE), folder / plan)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _estimated(estimate: Estimate, pictures: int) -> Estimated:
    return Estimated(value=estimate.value, low=estimate.low, high=estimate.high, pictures=pictures)
