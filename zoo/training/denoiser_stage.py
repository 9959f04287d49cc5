"""The stage that trains the denoisers and their bridges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from zoo import parts
from zoo.data import prompts
from zoo.training import denoiser
from zoo.training import text_encoder as text
from zoo.training.decoder_stage import DecoderStage
from zoo.training.kept_files import weights_digest, write_whole
from zoo.training.recipes import Round
from zoo.training.run import CHANNELS_LAST, TrainingRun
from zoo.training.text_stage import TextStage


@dataclass
class DenoiserStage:
    """Trains denoisers on the latents of the decoders' stage and the states of the text stage.

    Attributes:
        rounds: the schedules of each denoiser's rounds, by size.
    """

    run: TrainingRun
    rounds: Mapping[str, tuple[Round, ...]]
    text: TextStage
    decoders: DecoderStage

    def pairs(self, size: str) -> denoiser.Pairs:
        """The denoiser and its three bridges, trained on the drawn training rows.

        Each round starts from the last one's averaged weights; shipped rounds are taken as they
        are if they are the recipe's first ones, and all of them.
        """
        torch.manual_seed(40 + ord(size))
        pairs = denoiser.Pairs(
            denoiser.new_denoiser(size), [text.ENCODER_SIZES[s].width for s in parts.SIZES]
        )
        pairs = cast(denoiser.Pairs, cast(Any, pairs).to(self.run.device, **CHANNELS_LAST))
        kept = self.kept_rounds(size)
        if kept:
            load_pairs(pairs, cast(parts.Size, size))
        for number, schedule in enumerate(self.rounds[size][kept:], kept + 1):
            name = f"denoiser-{size}-{number}"
            self.run.fit(name, pairs, partial(self._denoiser_loss, pairs, schedule), schedule)
        return pairs.eval()

    def kept_rounds(self, size: str) -> int:
        """Return the number of the recipe's rounds that the shipped denoiser was trained for.

        The shipped weights are those after the last round. They can be used only if all their
        rounds belong to the recipe; otherwise the result is 0.
        """
        shipped = sum(name.startswith(f"denoiser-{size}-") for name in self.run.kept)
        rounds = self.rounds[size]
        is_same = shipped <= len(rounds) and all(
            self.run.keeps(f"denoiser-{size}-{n}", schedule)
            for n, schedule in enumerate(rounds[:shipped], 1)
        )
        return shipped if is_same else 0

    def _denoiser_loss(self, pairs: denoiser.Pairs, schedule: Round) -> Callable[..., Tensor]:
        train = self.run.rows(lambda r: r.split == "train" and r.drawn)
        views = [self.decoders.latents, *(self.decoders.moved_latents if schedule.moved else [])]
        clean = torch.stack([view[train] for view in views]).to(self.run.device)
        number = {t: i for i, t in enumerate(self.training_texts)}
        dataset = self.run.dataset
        texts_of_rows = [prompts.training_texts(dataset.rows[i]) for i in train]
        ways = torch.tensor([[number[t] for t in texts] for texts in texts_of_rows])
        likely = torch.tensor(prompts.TRAINING_TEXT_SHARES)
        states = [self.text_states(size) for size in parts.SIZES]
        alphas = denoiser.new_scheduler().alphas_cumprod.to(self.run.device)

        def loss(step: int, g: torch.Generator) -> Tensor:
            row = torch.randint(len(train), (schedule.batch_size,), generator=g)
            way = torch.multinomial(likely, schedule.batch_size, True, generator=g)
            dropped = torch.rand(schedule.batch_size, generator=g) < denoiser.TEXT_DROPOUT
            view = torch.zeros(schedule.batch_size, dtype=torch.long)
            if schedule.moved:
                moved = torch.rand(schedule.batch_size, generator=g) < schedule.moved
                view = torch.randint(1, len(clean), view.shape, generator=g) * moved
            latents = clean[view.to(self.run.device), row.to(self.run.device)]
            batch = denoiser.Batch(latents, ways[row, way], dropped)
            return denoiser.velocity_loss(pairs, alphas, batch, states, g)

        return loss

    @cached_property
    def training_texts(self) -> list[str]:
        dataset = self.run.dataset
        rows = [row for row in dataset.rows if row.split == "train" and row.drawn]
        return sorted({t for row in rows for t in prompts.training_texts(row)})

    def text_states(self, size: str) -> denoiser.Texts:
        """Return the hidden states of encoder `size` for every training text and the empty one."""
        encoder = self.text.encoder(size)
        path = self.run.folder / f"states-{size}-{weights_digest(encoder)}.safetensors"
        if not path.exists():
            ids = text.token_ids(self.text.tokenizer, ["", *self.training_texts]).to(
                self.run.device
            )
            states = text.encode(encoder, ids).half().cpu()
            write_whole(lambda p: save_file({"states": states}, p), path)
        states = load_file(path)["states"].to(self.run.device)
        return denoiser.Texts(states[1:], states[:1])


def load_pairs(pairs: denoiser.Pairs, size: parts.Size) -> None:
    """Load the weights of the shipped denoiser and bridges into `pairs`."""
    pairs.denoiser.load_state_dict(parts.load_denoiser(size).state_dict())
    for encoder, bridge in zip(parts.SIZES, pairs.bridges, strict=True):
        bridge.load_state_dict(parts.load_bridge(encoder, size).state_dict())
