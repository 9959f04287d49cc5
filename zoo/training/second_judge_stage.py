"""The stage that trains the second judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from sdpack.evaluate.judge import contrastive_loss
from sdpack.evaluate.resnet_judge import ResnetConfig, ResnetJudge, prepared
from torch import Tensor
from torch.nn import functional as F

from zoo import parts
from zoo.data import other_icons, prompts
from zoo.training import damage
from zoo.training import text_encoder as text
from zoo.training.judge_stage import STYLELESS, numbered
from zoo.training.loop import Schedule
from zoo.training.run import CHANNELS_LAST, TrainingRun
from zoo.training.text_stage import TextStage

NAME = "judge-resnet"
DAMAGED_SHARE = 4  # one image in so many is compared with a damaged copy
MARGIN, DAMAGE_WEIGHT = 0.02, 4.0


@dataclass(frozen=True)
class CaptionedPictures:
    """What the judge is trained on.

    Attributes:
        ink: float16 (N, 3, 64, 64), where 0 is white.
        texts: for each image and each kind of text, its number, int64 (N, 4).
        ids, mask: the tokens of all texts and their attention mask, int64 (T, length).
        labels, styles: numbers that are equal for equal labels and styles, int64 (N,).
    """

    ink: Tensor
    texts: Tensor
    ids: Tensor
    mask: Tensor
    labels: Tensor
    styles: Tensor


@dataclass
class SecondJudgeStage:
    """Trains the second judge; each property is made or resumed on first use."""

    run: TrainingRun
    schedule: Schedule
    text: TextStage

    @cached_property
    def trained(self) -> ResnetJudge:
        """Both towers, trained on every row but those the judges are tested on."""
        if self.run.keeps(NAME, self.schedule):
            shipped = parts.load_second_judge()
            shipped.to(self.run.device)
            return shipped
        torch.manual_seed(1001)
        model = ResnetJudge(ResnetConfig(vocab_size=text.VOCABULARY))
        model.to(self.run.device, **CHANNELS_LAST)
        self.run.fit(NAME, model, lambda: self._loss(model), self.schedule)
        model.eval()
        return model

    def lessons(self) -> CaptionedPictures:
        """The images of the data set and of other icon sets, with their texts."""
        dataset = self.run.dataset
        trained_on = self.run.rows(lambda row: not row.judge_test)
        other = other_icons.load(dataset.rows)
        rows = [dataset.rows[i] for i in trained_on]
        rows += [
            replace(row, style=style)  # type: ignore[arg-type]
            for row, style in zip(other.rows, other.styles, strict=True)
        ]
        images = torch.cat([self.run.images[trained_on], torch.from_numpy(other.images)])
        ways = [prompts.training_texts(row) for row in rows]
        texts = sorted({t for way in ways for t in way})
        number = {t: i for i, t in enumerate(texts)}
        encoded = self.text.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return CaptionedPictures(
            prepared(images).half(),
            torch.tensor([[number[t] for t in way] for way in ways]),
            encoded["input_ids"],
            encoded["attention_mask"],
            numbered(row.caption for row in rows),
            numbered(row.style for row in rows),
        )

    def _loss(self, model: ResnetJudge) -> Callable[..., Tensor]:
        lessons, device = self.lessons(), self.run.device
        likely = torch.tensor(prompts.TRAINING_TEXT_SHARES)
        count, size = len(lessons.ink), self.schedule.batch_size

        def embedded(ink: Tensor) -> Tensor:
            ink = ink.to(device, memory_format=torch.channels_last)
            return model.embed_features(model.pixel_features(ink))

        def loss(step: int, g: torch.Generator) -> Tensor:
            i = torch.randint(count, (size,), generator=g)
            way = torch.multinomial(likely, size, True, generator=g)
            ink = damage.augmented(lessons.ink[i].float(), g)
            worse = damage.damaged(ink[: size // DAMAGED_SHARE], g)
            images = embedded(torch.cat([ink, worse]))
            number = lessons.texts[i, way]
            texts = model.embed_texts(lessons.ids[number].to(device), lessons.mask[number])
            styles, labels = lessons.styles[i], lessons.labels[i]
            same_style = (styles[:, None] == styles[None, :]) | (way == STYLELESS)[None, :]
            same = (labels[:, None] == labels[None, :]) & same_style
            main = contrastive_loss(images[:size], texts, same.to(device), model.log_scale.exp())
            return main + DAMAGE_WEIGHT * damage_loss(images, texts, len(worse))

        return loss


def damage_loss(images: Tensor, texts: Tensor, count: int) -> Tensor:
    """Return how far damaged images exceed what they may score.

    Args:
        images: unit vectors of N images, and of damaged copies of the first `count`.
        texts: unit vectors of the N texts.
    """
    scores = (images[:count] * texts[:count]).sum(-1)
    damaged = (images[-count:] * texts[:count]).sum(-1)
    return F.relu(damaged - scores + MARGIN).mean()
