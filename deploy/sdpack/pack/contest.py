"""The mixes that fit, drawn and judged: the race of one build."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import PreTrainedTokenizerFast

from sdpack.engines import onnxruntime
from sdpack.errors import CatalogError
from sdpack.evaluate.judge import Judge
from sdpack.evaluate.metrics import Estimate, Panel, kid, mean_estimate
from sdpack.evaluate.race import Arm, Outcome, Race
from sdpack.evaluate.studio import Drawer, Studio, Task, Trio
from sdpack.export.checkpoint import Checkpoint
from sdpack.pack.fit import Fitted
from sdpack.pack.mix import Mix
from sdpack.pack.workshop import Workshop
from sdpack.placement import Role
from sdpack.runtime.pipeline import Pictures

MEASURED_ON = "ONNX Runtime CPU"


class Contest:
    """Scores mixes on the catalog's prompts, and finds the best of them.

    Every part is drawn with the graph that ships, on this machine's ONNX Runtime.
    """

    def __init__(
        self, workshop: Workshop, fitted: Sequence[Fitted], say: Callable[[str], None]
    ) -> None:
        self.workshop = workshop
        self.fitted = fitted
        self.say = say
        quality = workshop.located.catalog.quality
        self.prompts = workshop.located.prompts(quality.prompts)
        self.panel = self._panel()
        self.trios = [self._trio(f.mix) for f in fitted]
        self.studio = self._studio(self.prompts)
        rules = workshop.order.rules
        self.rules = replace(rules, most=min(rules.most, len(self.prompts)))

    def race(self) -> Outcome:
        """The race over all of them."""
        arms = [Arm(str(f.mix), f.size_bytes, f.rank) for f in self.fitted]
        return Race(arms, self.scores, self.rules).run()

    def scores(self, numbers: Sequence[int], asked: Sequence[int]) -> NDArray[np.float64]:
        """Judge similarity of these mixes on these prompts: float64 (mixes, prompts)."""
        self.say(f"drawing {len(asked)} prompts with {len(numbers)} mixes")
        return self.studio.scores([self.trios[n] for n in numbers], list(asked))

    def quality(self, number: int, prompts: int) -> tuple[Estimate, Estimate]:
        """Judge similarity and KID of one mix over the first prompts, all of them drawn before."""
        rounds = self.rules.rounds(prompts)
        scores = np.concatenate([self.scores([number], asked)[0] for asked in rounds])
        pictures = [self.studio.pictures(self.trios[number], asked) for asked in rounds]
        drawn = self.panel.features(torch.from_numpy(np.concatenate(pictures)))
        real = self.panel.features(torch.from_numpy(self._real_pictures()))
        return mean_estimate(scores), kid(drawn, real)

    def samples(self, number: int) -> Pictures:
        """The catalog's sample prompts through one mix, as one sheet."""
        quality = self.workshop.located.catalog.quality
        prompts = self.workshop.located.prompts(quality.samples)
        studio = self._studio(prompts)
        return sheet(studio.pictures(self.trios[number], list(range(len(prompts)))))

    def _panel(self) -> Panel:
        quality = self.workshop.located.catalog.quality
        judge: Judge = Judge.from_pretrained(self.workshop.order.folder(quality.judge))
        judge.float().eval()
        tokenizer = PreTrainedTokenizerFast.from_pretrained(
            self.workshop.order.folder(quality.tokenizer)
        )
        return Panel(judge, tokenizer)

    def _trio(self, mix: Mix) -> Trio:
        def drawer(role: Role) -> Drawer:
            variant = mix.variant(role)
            made = self.workshop.made(variant)
            encodes = role is Role.TEXT_ENCODER
            tokenizer = self.workshop.tokenizer(variant.candidate) if encodes else None
            return Drawer(made.artifact.content, lambda: onnxruntime.load(made.path), tokenizer)

        return Trio(*(drawer(role) for role in Role))

    def _studio(self, prompts: Sequence[str]) -> Studio:
        order, sampling = self.workshop.order, self.workshop.located.catalog.sampling
        task = Task(
            prompts,
            self.workshop.sampler,
            sampling.guidance_scale,
            sampling.negative_prompt,
            order.height,
            order.width,
        )
        latents = {
            trio.decoder.content: self.workshop.latents(f.mix.decoder.candidate)
            for trio, f in zip(self.trios, self.fitted, strict=True)
        }
        judge = Checkpoint(order.folder(self.workshop.located.catalog.quality.judge)).content
        store, ledger = self.workshop.store, self.workshop.ledger
        return Studio(task, latents, self.panel, judge, store, ledger, MEASURED_ON)

    def _real_pictures(self) -> Pictures:
        """The real pictures the prompts stand for, cut from their sheet.

        Raises:
            CatalogError: the sheet cannot be read, or holds too few.
        """
        catalog = self.workshop.located.catalog
        path = self.workshop.located.path(catalog.quality.real_images)
        side, columns = catalog.image_size, catalog.quality.real_columns
        try:
            whole = np.asarray(Image.open(path).convert("RGB"))
        except (OSError, SyntaxError) as cause:
            raise CatalogError(f"{path} cannot be read ({cause}); restore it") from cause
        rows = whole.shape[0] // side
        if whole.shape[1] != columns * side or rows * columns < len(self.prompts):
            raise CatalogError(
                f"{path} is {whole.shape[1]}x{whole.shape[0]}, which does not hold "
                f"{len(self.prompts)} tiles of {side}, {columns} a row; check quality.real_columns"
            )
        tiles = whole[: rows * side].reshape(rows, side, columns, side, 3).swapaxes(1, 2)
        pictures: Pictures = tiles.reshape(-1, side, side, 3)[: len(self.prompts)].copy()
        return pictures


def sheet(pictures: Pictures, columns: int = 5, gap: int = 4) -> Pictures:
    """Pictures side by side on white: uint8 (H, W, 3)."""
    height, width = (size + gap for size in pictures.shape[1:3])
    rows = -(-len(pictures) // columns)
    whole = np.full((rows * height + gap, columns * width + gap, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        top, left = gap + row * height, gap + column * width
        whole[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return whole
