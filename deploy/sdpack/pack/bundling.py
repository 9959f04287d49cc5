"""The winner of a build as a bundle."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from sdpack.bundle import (
    ONNX,
    PORTABLE,
    SAMPLER,
    SAMPLES,
    Estimated,
    Evidence,
    LatentSpace,
    Manifest,
    MemoryFigures,
    Part,
    PlacementFigures,
    Sampling,
    write_bundle,
)
from sdpack.engines.tensorrt_builder import TENSORRT_PACKAGES
from sdpack.evaluate.metrics import Estimate
from sdpack.evaluate.race import Outcome, Standing
from sdpack.pack.contest import MEASURED_ON, Contest
from sdpack.pack.fit import Fitted
from sdpack.pack.mix import Variant
from sdpack.pack.order import Order
from sdpack.pack.workshop import EXPORTERS, QUANTIZERS, Workshop, versions
from sdpack.placement import Role

ENGINES = "engines"
TOOLS = (*EXPORTERS, *QUANTIZERS, "tensorrt_rtx_cu13", "sdpack")


@dataclass(frozen=True)
class Bundling:
    """Writes the winner of a finished race."""

    contest: Contest
    outcome: Outcome

    @property
    def workshop(self) -> Workshop:
        return self.contest.workshop

    @property
    def order(self) -> Order:
        return self.workshop.order

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
        return Part(
            candidate=variant.candidate,
            precision=variant.precision,
            source=str(candidate.source),
            licence=candidate.licence,
            parameters=self.workshop.checkpoint(variant.role, variant.candidate).parameters,
            graph=f"{ONNX}/{PORTABLE[variant.role]}/model.onnx",
            plan=self._plan_name(variant.role),
        )

    def _plan_name(self, role: Role) -> str | None:
        if self.order.profile.runtime not in TENSORRT_PACKAGES:
            return None
        return f"{ENGINES}/{role.value}.plan"

    def _memory(self) -> MemoryFigures:
        peak = self.winner.peak
        return MemoryFigures(
            budget_bytes=self.order.budget,
            predicted_bytes=peak.bytes,
            weights=dict(peak.weights),
            activation_bytes=peak.activation_bytes,
            activation_role=peak.role,
            fixed_bytes=peak.fixed_bytes,
        )

    def _evidence(self) -> Evidence:
        number = self.outcome.winner
        seen = next(s.prompts for s in self.outcome.standings if s.arm == number)
        quality, distance = self.contest.quality(number, seen)
        return Evidence(
            metric="judge similarity",
            measured_on=MEASURED_ON,
            quality=_estimated(quality, seen),
            kid=_estimated(distance, seen),
            mixes=len(self.contest.fitted),
            pictures=self.outcome.pictures,
            standings=tuple(self._standing(s) for s in self.outcome.standings),
        )

    def _standing(self, standing: Standing) -> dict[str, Any]:
        fitted = self.contest.fitted[standing.arm]
        return {
            "mix": str(fitted.mix),
            "placement": str(fitted.placement),
            "peak_bytes": fitted.peak.bytes,
            "weights": {role.value: count for role, count in fitted.peak.weights.items()},
            "fate": standing.fate.value,
            "pictures": standing.prompts,
            "mean": standing.mean,
            "behind": standing.behind,
            "low": standing.low,
            "high": standing.high,
        }

    def _fill(self, folder: Path) -> None:
        for role in Role:
            self._fill_part(folder, self.winner.mix.variant(role))
        encoder = self.winner.mix.text_encoder.candidate
        shutil.copytree(self.workshop.tokenizer_folder(encoder), folder / ONNX / "tokenizer")
        scheduler = self.order.folder(self.order.located.catalog.sampling.scheduler)
        shutil.copytree(scheduler, folder / ONNX / "scheduler")
        table = json.dumps(self.workshop.sampler.to_json())
        (folder / SAMPLER).write_text(table + "\n")
        samples = self.contest.samples(self.outcome.winner)
        Image.fromarray(samples).save(folder / SAMPLES, optimize=True)

    def _fill_part(self, folder: Path, variant: Variant) -> None:
        target = folder / ONNX / PORTABLE[variant.role]
        target.mkdir(parents=True)
        made = self.workshop.made(variant).artifact
        for name in made.files:
            shutil.copyfile(made.path(name), target / name)
        checkpoint = self.workshop.checkpoint(variant.role, variant.candidate)
        shutil.copyfile(checkpoint.folder / "config.json", target / "config.json")
        plan = self._plan_name(variant.role)
        if plan is not None:
            (folder / ENGINES).mkdir(exist_ok=True)
            built = self.workshop.plan(variant, self.winner.placement)
            shutil.copyfile(built.path, folder / plan)


def _estimated(estimate: Estimate, pictures: int) -> Estimated:
    return Estimated(value=estimate.value, low=estimate.low, high=estimate.high, pictures=pictures)
