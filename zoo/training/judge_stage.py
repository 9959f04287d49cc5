"""The stage that trains the judge."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from safetensors.torch import load_file, save_file
from sdpack.evaluate import judge
from torch import Tensor

from zoo import parts
from zoo.data import packages, prompts
from zoo.training import judge_views
from zoo.training import text_encoder as text
from zoo.training.kept_files import write_whole
from zoo.training.loop import Schedule
from zoo.training.run import TrainingRun
from zoo.training.text_stage import TextStage

VIEWS = range(3)
STYLELESS = 3  # which of a row's training texts names no style


@dataclass
class JudgeStage:
    """Trains the judge; each property is made or resumed on first use."""

    run: TrainingRun
    schedule: Schedule
    text: TextStage

    @cached_property
    def judge_features(self) -> Tensor:
        """Frozen image features of every row in every view: float16 (views, N, 1280)."""
        dataset = self.run.dataset
        path = self.run.folder / f"judge-features-{dataset.digest[:12]}.safetensors"
        if not path.exists():
            tower = self._new_judge().image.eval()
            features = torch.stack([judge_views.features(tower, self.run.images, v) for v in VIEWS])
            write_whole(lambda p: save_file({"features": features.half().cpu()}, p), path)
        return load_file(path)["features"]

    def _new_judge(self) -> judge.Judge:
        torch.manual_seed(1000)
        model = judge.Judge(judge.JudgeConfig(vocab_size=text.VOCABULARY))
        folder = packages.installed_folder(*judge.IMAGENET)
        weights = torch.load(folder / "models" / judge.IMAGENET_FILE, weights_only=True)
        model.image.load_pretrained(weights)
        model.to(self.run.device)
        return model

    @cached_property
    def trained_judge(self) -> judge.Judge:
        """Projections and text tower, trained on every row but those the judge is tested on."""
        if self.run.keeps("judge", self.schedule):
            shipped = parts.load_judge()
            shipped.to(self.run.device)
            return shipped
        model = self._new_judge()
        model.image.requires_grad_(False)
        self.run.fit("judge", model, lambda: self._judge_loss(model), self.schedule)
        model.eval()
        return model

    def _judge_loss(self, model: judge.Judge) -> Callable[..., Tensor]:
        dataset, trained_on = self.run.dataset, self.run.rows(lambda r: not r.judge_test)
        rows = [dataset.rows[i] for i in trained_on]
        features = self.judge_features[:, trained_on].to(self.run.device)
        ways = [prompts.training_texts(row) for row in rows]
        texts = sorted({t for way in ways for t in way})
        number = {t: i for i, t in enumerate(texts)}
        text_numbers = torch.tensor([[number[t] for t in way] for way in ways])
        encoded = self.text.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        ids, mask = (
            encoded["input_ids"].to(self.run.device),
            encoded["attention_mask"].to(self.run.device),
        )
        label = numbered(row.caption for row in rows).to(self.run.device)
        style = numbered(row.style for row in rows).to(self.run.device)
        likely = torch.tensor(prompts.TRAINING_TEXT_SHARES)
        size = self.schedule.batch_size

        def loss(step: int, g: torch.Generator) -> Tensor:
            i = torch.randint(len(rows), (size,), generator=g)
            view = torch.randint(len(VIEWS), (size,), generator=g)
            way = torch.multinomial(likely, size, True, generator=g)
            t = text_numbers[i, way].to(self.run.device)
            i, view, way = (x.to(self.run.device) for x in (i, view, way))
            text_embeddings = model.embed_texts(ids[t], mask[t])
            image_embeddings = model.embed_features(features[view, i].float())
            same_style = (style[i][:, None] == style[i][None, :]) | (way == STYLELESS)[None, :]
            same = (label[i][:, None] == label[i][None, :]) & same_style
            return judge.contrastive_loss(
                image_embeddings, text_embeddings, same, model.log_scale.exp()
            )

        return loss


def numbered(names: Iterable[str]) -> Tensor:
    """Number the names, equal names with equal numbers: int64 (N,)."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(name, len(numbers)) for name in names])
