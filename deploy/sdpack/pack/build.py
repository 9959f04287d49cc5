"""`build`: from a profile and a catalog to the bundle of the best mix that fits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdpack.artifacts import Ledger, Store, cache_folder
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
from sdpack.engines import onnxruntime
from sdpack.engines.tensorrt_builder import TENSORRT_PACKAGES
from sdpack.errors import EngineError
from sdpack.evaluate.judge import Judge
from sdpack.evaluate.metrics import Panel, kid, mean_estimate
from sdpack.evaluate.race import Arm, Outcome, Race, Rules
from sdpack.evaluate.studio import Drawer, Studio, Task, Trio
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.sampler import load_scheduler, sampler_table
from sdpack.pack.fit import Fitted, fit
from sdpack.pack.mix import Mix, Variant, mixes
from sdpack.pack.order import Order, check
from sdpack.pack.workshop import EXPORTERS, QUANTIZERS, Workshop, versions
from sdpack.placement import Role
from sdpack.runtime.pipeline import Pictures

ENGINES = "engines"
MEASURED_ON = "ONNX Runtime CPU"
PARTS_OF_TOOLS = (*EXPORTERS, *QUANTIZERS, "tensorrt_rtx_cu13", "sdpack")


@dataclass(frozen=True)
class Result:
    """A finished build: the race's outcome over the mixes that fit, and the bundle."""

    fitted: tuple[Fitted, ...]
    outcome: Outcome
    manifest: Manifest

    @property
    def winner(self) -> Fitted:
        return self.fitted[self.outcome.winner]


class Build:
    """One build; `run` it."""

    def __init__(self, order: Order, say: Callable[[str], None] = lambda _: None) -> None:
        self.order = order
        self.say = say
        self.profile = order.profile
        self.catalog = order.located.catalog

    def run(self) -> Result:
        """Build the bundle.

        Raises:
            InfeasibleError: nothing fits; found out before any export where sizes alone tell.
            SdpackError: anything else that failed, in one line.
        """
        check(self.order)
        folder = cache_folder()
        self.store = Store(folder / "store")
        self.ledger = Ledger(folder / "ledger.sqlite")
        try:
            return self._run()
        finally:
            self.ledger.close()

    # --- the steps ---

    def _run(self) -> Result:
        sampling = self.catalog.sampling
        self.sampler = sampler_table(
            load_scheduler(self.order.folder(sampling.scheduler)), sampling.steps
        )
        self.workshop = Workshop(self.order, self.store, self.ledger, self.sampler, self.say)
        every = self._buildable(list(mixes(self.catalog, self.order.precisions)))
        fitted = fit(
            every,
            self.order.placements,
            self.workshop.footprint,
            self.order.budget,
            self.workshop.fixed_bytes,
        )
        outcome = self._race(fitted)
        manifest = self._write(fitted, outcome)
        return Result(tuple(fitted), outcome, manifest)

    def _buildable(self, every: Sequence[Mix]) -> list[Mix]:
        """The mixes all of whose variants the target's compiler takes."""
        variants = dict.fromkeys(mix.variant(role) for mix in every for role in Role)
        failed: dict[Variant, EngineError] = {}
        for variant in variants:
            try:
                self.workshop.made(variant)
            except EngineError as error:
                self.say(f"left out: {error}")
                failed[variant] = error
        left = [mix for mix in every if not any(mix.variant(role) in failed for role in Role)]
        if not left:
            raise next(iter(failed.values()))
        return left

    def _race(self, fitted: Sequence[Fitted]) -> Outcome:
        quality = self.catalog.quality
        prompts = self.order.located.prompts(quality.prompts)
        self.studio = self._studio(prompts)
        trios = [self._trio(f.mix) for f in fitted]
        arms = [Arm(str(f.mix), f.peak.bytes) for f in fitted]
        rules = self.order.rules
        most = min(rules.most, len(prompts))

        def score(numbers: Sequence[int], asked: Sequence[int]) -> Any:
            self.say(f"drawing {len(asked)} prompts with {len(numbers)} mixes")
            return self.studio.scores([trios[n] for n in numbers], list(asked))

        return Race(
            arms, score, Rules(rules.confidence, rules.indifference, rules.first, most)
        ).run()

    def _studio(self, prompts: Sequence[str]) -> Studio:
        sampling, quality = self.catalog.sampling, self.catalog.quality
        folder = self.order.folder(quality.judge)
        judge: Judge = Judge.from_pretrained(folder)
        judge.float().eval()
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast.from_pretrained(self.order.folder(quality.tokenizer))
        task = Task(
            prompts,
            self.sampler,
            sampling.guidance_scale,
            sampling.negative_prompt,
            self.order.height,
            self.order.width,
        )
        latents = {
            self.workshop.made(variant).artifact.content: self.workshop.latents(variant.candidate)
            for variant in self.workshop.known(Role.DECODER)
        }
        return Studio(
            task,
            latents,
            Panel(judge, tokenizer),
            Checkpoint(folder).content,
            self.store,
            self.ledger,
            MEASURED_ON,
        )

    def _trio(self, mix: Mix) -> Trio:
        def drawer(role: Role) -> Drawer:
            variant = mix.variant(role)
            made = self.workshop.made(variant)
            tokenizer = (
                self.workshop.tokenizer(variant.candidate) if role is Role.TEXT_ENCODER else None
            )
            return Drawer(made.artifact.content, lambda: onnxruntime.load(made.path), tokenizer)

        return Trio(*(drawer(role) for role in Role))

    # --- the bundle ---

    def _write(self, fitted: Sequence[Fitted], outcome: Outcome) -> Manifest:
        winner = fitted[outcome.winner]
        trio = self._trio(winner.mix)
        manifest = Manifest(
            name=self.order.out.name,
            catalog=self.catalog.name,
            profile=self.profile,
            parts={role: self._part(winner.mix.variant(role)) for role in Role},
            placement=PlacementFigures.of(winner.placement),
            sampling=Sampling(
                steps=self.catalog.sampling.steps,
                guidance_scale=self.catalog.sampling.guidance_scale,
                negative_prompt=self.catalog.sampling.negative_prompt,
                height=self.order.height,
                width=self.order.width,
                batch=self.profile.shapes.batch,
            ),
            latents=LatentSpace(**asdict(self.workshop.latents(winner.mix.decoder.candidate))),
            memory=self._memory(winner),
            evidence=self._evidence(fitted, outcome, trio),
            tools=versions(PARTS_OF_TOOLS),
        )
        return write_bundle(
            self.order.out, manifest, lambda folder: self._fill(folder, winner, trio)
        )

    def _part(self, variant: Variant) -> Part:
        candidate = self.catalog.candidates(variant.role)[variant.candidate]
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
        if self.profile.runtime not in TENSORRT_PACKAGES:
            return None
        return f"{ENGINES}/{role.value}.plan"

    def _memory(self, winner: Fitted) -> MemoryFigures:
        peak = winner.peak
        return MemoryFigures(
            budget_bytes=self.order.budget,
            predicted_bytes=peak.bytes,
            weights=dict(peak.weights),
            activation_bytes=peak.activation_bytes,
            activation_role=peak.role,
            fixed_bytes=peak.fixed_bytes,
        )

    def _evidence(self, fitted: Sequence[Fitted], outcome: Outcome, trio: Trio) -> Evidence:
        seen = next(s.prompts for s in outcome.standings if s.arm == outcome.winner)
        numbers = self.order.rules.rounds(seen)
        scores = np.concatenate([self.studio.scores([trio], part)[0] for part in numbers])
        quality = mean_estimate(scores)
        return Evidence(
            metric="judge similarity",
            measured_on=MEASURED_ON,
            quality=Estimated(
                value=quality.value, low=quality.low, high=quality.high, pictures=len(scores)
            ),
            kid=self._kid(trio, [n for part in numbers for n in part]),
            mixes=len(fitted),
            pictures=outcome.pictures,
            standings=tuple(
                {
                    "mix": str(fitted[s.arm].mix),
                    "placement": str(fitted[s.arm].placement),
                    "peak_bytes": fitted[s.arm].peak.bytes,
                    "fate": s.fate,
                    "pictures": s.prompts,
                    "mean": s.mean,
                    "behind": s.behind,
                    "low": s.low,
                    "high": s.high,
                }
                for s in outcome.standings
            ),
        )

    def _kid(self, trio: Trio, numbers: Sequence[int]) -> Estimated | None:
        import torch

        real = self._real_pictures()
        if real is None:
            return None
        drawn = torch.from_numpy(self.studio.pictures(trio, numbers))
        panel = self.studio.panel
        found = kid(panel.features(drawn), panel.features(torch.from_numpy(real)))
        return Estimated(value=found.value, low=found.low, high=found.high, pictures=len(numbers))

    def _real_pictures(self) -> Pictures | None:
        quality = self.catalog.quality
        path = self.order.located.path(quality.real_images)
        side = self.catalog.image_size
        sheet = np.asarray(Image.open(path).convert("RGB"))
        rows, columns = sheet.shape[0] // side, sheet.shape[1] // side
        tiles = sheet.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
        count = len(self.order.located.prompts(quality.prompts))
        pictures: Pictures = tiles.reshape(-1, side, side, 3)[:count].copy()
        return pictures

    def _fill(self, folder: Path, winner: Fitted, trio: Trio) -> None:
        for role in Role:
            variant = winner.mix.variant(role)
            target = folder / ONNX / PORTABLE[role]
            target.mkdir(parents=True)
            made = self.workshop.made(variant)
            for name in made.artifact.files:
                shutil.copyfile(made.artifact.path(name), target / name)
            shutil.copyfile(
                self.workshop.checkpoint(role, variant.candidate).folder / "config.json",
                target / "config.json",
            )
            plan = self._plan_name(role)
            if plan is not None:
                (folder / ENGINES).mkdir(exist_ok=True)
                built = self.workshop.plan(variant, winner.placement)
                shutil.copyfile(built.path, folder / plan)
        encoder = winner.mix.text_encoder.candidate
        tokenizer = self.workshop.tokenizer_folder(encoder)
        shutil.copytree(tokenizer, folder / ONNX / "tokenizer")
        scheduler = self.order.folder(self.catalog.sampling.scheduler)
        shutil.copytree(scheduler, folder / ONNX / "scheduler")
        (folder / SAMPLER).write_text(json.dumps(self.sampler.to_json()) + "\n")
        Image.fromarray(self._samples(trio)).save(folder / SAMPLES, optimize=True)

    def _samples(self, trio: Trio) -> Pictures:
        prompts = self.order.located.prompts(self.catalog.quality.samples)
        studio = self._studio(prompts)
        drawn = studio.pictures(trio, list(range(len(prompts))))
        return sheet(drawn)


def sheet(pictures: Pictures, columns: int = 5, gap: int = 4) -> Pictures:
    """Pictures side by side on white: uint8 (H, W, 3)."""
    side = pictures.shape[1] + gap
    rows = -(-len(pictures) // columns)
    whole = np.full((rows * side + gap, columns * side + gap, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = (gap + side * step for step in divmod(number, columns))
        whole[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return whole
