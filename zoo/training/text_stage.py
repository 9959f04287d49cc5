"""The stage that trains the tokenizer and the text encoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from zoo import parts
from zoo.data import packages
from zoo.training import text_encoder as text
from zoo.training.kept_files import save_whole, texts_digest
from zoo.training.loop import Schedule
from zoo.training.run import TrainingRun


@dataclass
class TextStage:
    """Trains text encoders; each property is made or resumed on first use.

    Attributes:
        schedules: the schedule of each text encoder, by size.
        wordnet_share: the share of WordNet's texts that they are taught.
    """

    run: TrainingRun
    schedules: Mapping[str, Schedule]
    wordnet_share: float

    @cached_property
    def emoji_texts(self) -> list[str]:
        return text.emoji_texts(self.run.dataset)

    @cached_property
    def lesson_texts(self) -> list[str]:
        wordnet = packages.fetch(packages.WORDNET)
        return self.emoji_texts + text.wordnet_texts(wordnet, self.wordnet_share)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        if self.run.kept:
            return parts.load_tokenizer()
        folder = self.run.folder / f"tokenizer-{texts_digest(self.lesson_texts)}"
        if not folder.exists():
            text.train_tokenizer(self.lesson_texts).save_pretrained(folder)
        return cast(PreTrainedTokenizerFast, PreTrainedTokenizerFast.from_pretrained(folder))

    @cached_property
    def lessons(self) -> text.Lessons:
        path = self.run.folder / f"lessons-{texts_digest(self.lesson_texts)}.pt"
        if not path.exists():
            lessons = text.teach(self.lesson_texts)
            save_whole((lessons.texts, lessons.sentences, lessons.words), path)
        return text.Lessons(*torch.load(path, weights_only=True))

    def encoder(self, size: str) -> CLIPTextModel:
        schedule = self.schedules[size]
        if self.run.keeps(f"text-{size}", schedule):
            return parts.load_text_encoder(cast(parts.Size, size)).to(self.run.device)
        tokenizer = self.tokenizer
        torch.manual_seed(10 + ord(size))
        encoder = text.new_encoder(size, tokenizer.eos_token_id, tokenizer.bos_token_id)
        student = text.Student(encoder).to(self.run.device)
        self.run.fit(f"text-{size}", student, lambda: self._text_loss(student, schedule), schedule)
        return student.encoder.eval()

    def _text_loss(self, student: text.Student, schedule: Schedule) -> Callable[..., Tensor]:
        lessons, device = self.lessons, self.run.device
        ids = text.token_ids(self.tokenizer, lessons.texts)
        ends, words = text.last_tokens(self.tokenizer, lessons.texts)
        emoji = set(self.emoji_texts)
        weights = torch.tensor([2.0 if t in emoji else 1.0 for t in lessons.texts])
        weights[::97] = 0  # held out, to measure the student on texts it never met

        def loss(step: int, g: torch.Generator) -> Tensor:
            i = torch.multinomial(weights, schedule.batch_size, generator=g)
            length = int(ends[i].max()) + 1
            targets = (lessons.sentences[i].to(device), lessons.words[i].to(device))
            a, b, c = (t.to(device) for t in (ids[i, :length], ends[i], words[i]))
            return student.loss(a, b, c, targets)

        return loss
