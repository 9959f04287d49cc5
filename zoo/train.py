"""Train the whole zoo from nothing: `python -m zoo.train --recipe cpu`.

Stages run in order and each keeps a checkpoint, so a run that was stopped goes on where it was;
a finished stage is not run again. Nothing is written to zoo/parts before the last stage.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import click
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from zoo import autoencoder, data, denoiser, judge, packages, parts, prompts, text
from zoo.errors import TrainingError, ZooError
from zoo.loop import Schedule, Stage

JUDGE_VIEWS = 4


@dataclass(frozen=True)
class Recipe:
    """Every stage's schedule; the seeds are part of it."""

    vae: Schedule
    decoder: Schedule
    tiny: Schedule
    text: dict[str, Schedule]
    judge: Schedule
    denoiser: dict[str, Schedule]
    wordnet_share: float = 0.5


CPU = Recipe(
    vae=Schedule(steps=2600, batch_size=32, lr=2e-3, ema_decay=0.998, seed=1),
    decoder=Schedule(steps=2000, batch_size=32, lr=1e-3, ema_decay=0.998, seed=2),
    tiny=Schedule(steps=3000, batch_size=32, lr=2e-3, ema_decay=0.998, seed=3),
    text={
        "s": Schedule(steps=2000, batch_size=256, lr=3e-3, ema_decay=0.998, seed=20),
        "m": Schedule(steps=1600, batch_size=256, lr=2e-3, ema_decay=0.998, seed=20),
        "l": Schedule(steps=1300, batch_size=256, lr=1.2e-3, ema_decay=0.998, seed=20),
    },
    judge=Schedule(steps=3000, batch_size=512, lr=1e-3, ema_decay=0.998, seed=30),
    denoiser={
        "s": Schedule(steps=12000, batch_size=128, lr=2e-3, seed=41),
        "m": Schedule(steps=12000, batch_size=128, lr=1.2e-3, seed=42),
        "l": Schedule(steps=12000, batch_size=128, lr=8e-4, seed=43),
    },
)
GPU = CPU
RECIPES = {"cpu": CPU, "gpu": GPU}


class Training:
    """One run of a recipe; each property is a stage's result, made or resumed on first use."""

    def __init__(self, recipe: Recipe, folder: Path, device: torch.device) -> None:
        self.recipe = recipe
        self.folder = folder
        self.device = device

    @cached_property
    def dataset(self) -> data.Dataset:
        return data.load()

    @cached_property
    def images(self) -> Tensor:
        return torch.from_numpy(self.dataset.images)

    def rows(self, keep: Callable[[data.Row], bool]) -> Tensor:
        """Indices of the data set's rows for which `keep` holds."""
        return torch.tensor([i for i, row in enumerate(self.dataset.rows) if keep(row)])

    # --- text ---

    @cached_property
    def emoji_texts(self) -> list[str]:
        return text.emoji_texts(self.dataset)

    @cached_property
    def lesson_texts(self) -> list[str]:
        wordnet = packages.fetch(packages.WORDNET)
        return self.emoji_texts + text.wordnet_texts(wordnet, self.recipe.wordnet_share)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        folder = self.folder / "tokenizer"
        if not folder.exists():
            text.train_tokenizer(self.lesson_texts).save_pretrained(folder)
        return cast(PreTrainedTokenizerFast, PreTrainedTokenizerFast.from_pretrained(folder))

    @cached_property
    def lessons(self) -> text.Lessons:
        path = self.folder / "lessons.pt"
        if not path.exists():
            lessons = text.teach(self.lesson_texts)
            _save_whole((lessons.texts, lessons.sentences, lessons.words), path)
        return text.Lessons(*torch.load(path, weights_only=True))

    def text_encoder(self, size: str) -> CLIPTextModel:
        schedule = self.recipe.text[size]
        tokenizer = self.tokenizer
        torch.manual_seed(10 + ord(size))
        encoder = text.new_encoder(size, tokenizer.eos_token_id, tokenizer.bos_token_id)
        student = text.Student(encoder).to(self.device)
        loss = _Deferred(lambda: self._text_loss(student, schedule))
        Stage(f"text-{size}", student, loss, schedule, self.folder).fit()
        return student.encoder.eval()

    def _text_loss(self, student: text.Student, schedule: Schedule) -> Callable[..., Tensor]:
        lessons = self.lessons
        ids = text.token_ids(self.tokenizer, lessons.texts)
        ends, words = text.last_tokens(self.tokenizer, lessons.texts)
        emoji = set(self.emoji_texts)
        weights = torch.tensor([2.0 if t in emoji else 1.0 for t in lessons.texts])
        weights[::97] = 0  # kept out, to see what the student says of texts it never met

        def loss(step: int, g: torch.Generator) -> Tensor:
            i = torch.multinomial(weights, schedule.batch_size, generator=g)
            length = int(ends[i].max()) + 1
            said = (lessons.sentences[i].to(self.device), lessons.words[i].to(self.device))
            asked = [t.to(self.device) for t in (ids[i, :length], ends[i], words[i])]
            return student.loss(*asked, said)

        return loss

    # --- pictures to latents and back ---

    @cached_property
    def vae(self) -> autoencoder.AutoencoderKL:
        """Encoder and decoder trained together, latents normalized."""
        torch.manual_seed(0)
        vae = autoencoder.new_kl().to(self.device, memory_format=torch.channels_last)
        train = self.rows(lambda r: r.split == "train")
        size = self.recipe.vae.batch_size

        def loss(step: int, g: torch.Generator) -> Tensor:
            index = train[torch.randint(len(train), (size,), generator=g)]
            x = autoencoder.to_unit(self.images[index].to(self.device))
            return autoencoder.kl_loss(vae, x, torch.randn(size, 16, 8, 8, generator=g).to(x))

        Stage("vae", vae, loss, self.recipe.vae, self.folder).fit()
        vae.eval()
        autoencoder.normalize_latents(vae, autoencoder.encode(vae, self.images[train]))
        return vae

    @cached_property
    def latents(self) -> Tensor:
        """Latents of every row of the data set: float32 (N, 16, 8, 8)."""
        path = self.folder / "latents.pt"
        if not path.exists():
            _save_whole(autoencoder.encode(self.vae, self.images).cpu(), path)
        return cast(Tensor, torch.load(path, weights_only=True))

    # --- denoisers ---

    def denoiser(self, size: str) -> denoiser.Pairs:
        """The denoiser and its three bridges, trained on the drawn training rows."""
        schedule = self.recipe.denoiser[size]
        torch.manual_seed(40 + ord(size))
        pairs = denoiser.Pairs(
            denoiser.new_denoiser(size), [text.ENCODER_SIZES[s].width for s in parts.SIZES]
        ).to(self.device, memory_format=torch.channels_last)
        loss = _Deferred(lambda: self._denoiser_loss(pairs, schedule))
        Stage(f"denoiser-{size}", pairs, loss, schedule, self.folder).fit()
        return pairs.eval()

    def _denoiser_loss(self, pairs: denoiser.Pairs, schedule: Schedule) -> Callable[..., Tensor]:
        train = self.rows(lambda r: r.split == "train" and r.drawn)
        clean = self.latents[train].to(self.device)
        asked = self.training_texts
        number = {t: i for i, t in enumerate(asked)}
        ways = torch.tensor(
            [[number[t] for t in prompts.training_texts(self.dataset.rows[i])] for i in train]
        )
        likely = torch.tensor(prompts.TRAINING_TEXT_SHARES)
        states = [self.text_states(size) for size in parts.SIZES]
        alphas = denoiser.new_scheduler().alphas_cumprod.to(self.device)

        def loss(step: int, g: torch.Generator) -> Tensor:
            row = torch.randint(len(train), (schedule.batch_size,), generator=g)
            way = torch.multinomial(likely, schedule.batch_size, True, generator=g)
            dropped = torch.rand(schedule.batch_size, generator=g) < denoiser.TEXT_DROPOUT
            batch = denoiser.Batch(clean[row.to(self.device)], ways[row, way], dropped)
            return denoiser.velocity_loss(pairs, alphas, batch, states, g)

        return loss

    @cached_property
    def training_texts(self) -> list[str]:
        rows = [r for r in self.dataset.rows if r.split == "train" and r.drawn]
        return sorted({t for row in rows for t in prompts.training_texts(row)})

    def text_states(self, size: str) -> denoiser.Texts:
        """What encoder `size` says of every training text, and of the empty one."""
        path = self.folder / f"states-{size}.safetensors"
        if not path.exists():
            encoder = self.text_encoder(size)
            ids = text.token_ids(self.tokenizer, ["", *self.training_texts]).to(self.device)
            states = text.encode(encoder, ids).half().cpu()
            _replace(lambda p: save_file({"states": states}, p), path)
        states = load_file(path)["states"].to(self.device)
        return denoiser.Texts(states[1:], states[:1])


class _Deferred:
    """A loss whose data are prepared at the first step: a finished stage never needs them."""

    def __init__(self, make: Callable[[], Callable[..., Tensor]]) -> None:
        self._make = make

    @cached_property
    def _loss(self) -> Callable[..., Tensor]:
        return self._make()

    def __call__(self, step: int, g: torch.Generator) -> Tensor:
        return self._loss(step, g)


def _replace(write: Callable[[Path], None], path: Path) -> None:
    partial = path.with_name(f"{path.name}.partial")
    write(partial)
    os.replace(partial, path)


def _save_whole(value: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(lambda p: torch.save(value, p), path)
