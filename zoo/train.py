"""Train the whole zoo from nothing: `python -m zoo.train --recipe cpu`.

Stages run in order and each keeps a checkpoint, so a run that was stopped goes on where it was;
a finished stage is not run again. zoo/parts is replaced as a whole, after the last stage.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import click
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file
from sdpack.evaluate import judge
from sdpack.export.bridge import BridgeModule, save_bridge
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from zoo import (
    autoencoder,
    data,
    denoiser,
    evaluate,
    judge_views,
    moves,
    packages,
    parts,
    prompts,
    text,
)
from zoo.errors import TrainingError, ZooError
from zoo.loop import Schedule, Stage

CHANNELS_LAST = {"memory_format": torch.channels_last}
RECORD = "training.json"
VERSIONED = ("torch", "diffusers", "transformers", "tokenizers")
VIEWS = range(3)
MOVED_VIEWS = 4  # how many moved latents of each row are kept to draw from
STYLELESS = 3  # which of a row's training texts names no style


@dataclass(frozen=True)
class Round(Schedule):
    """One round of a denoiser's training.

    Attributes:
        moved: the share of a batch's pictures that is shown a little shifted and scaled. A
            denoiser that has begun to know its pictures by heart learns more from these.
    """

    moved: float = 0.0


@dataclass(frozen=True)
class TrainingRecipe:
    """Every stage's schedule; the seeds are part of it."""

    vae: Schedule
    tiny: Schedule
    text: dict[str, Schedule]
    judge: Schedule
    denoiser: dict[str, tuple[Round, ...]]
    wordnet_share: float = 0.5


def _first_round(steps: int, seed: int) -> Round:
    """A round that ends at half its rate: another one follows."""
    return Round(steps, batch_size=128, lr=2e-3, final_lr_share=0.5, seed=seed, muon=True)


def _last_round(steps: int, seed: int, moved: float = 0.0) -> Round:
    """A round that ends at rest."""
    return Round(steps, batch_size=128, lr=2e-3, seed=seed, muon=True, moved=moved)


CPU = TrainingRecipe(
    vae=Schedule(steps=3200, batch_size=32, lr=3e-3, ema_decay=0.998, seed=1, muon=True),
    tiny=Schedule(steps=900, batch_size=32, lr=3e-3, ema_decay=0.998, seed=3, muon=True),
    text={
        "s": Schedule(steps=2000, batch_size=256, lr=3e-3, ema_decay=0.998, seed=20),
        "m": Schedule(steps=1600, batch_size=256, lr=2e-3, ema_decay=0.998, seed=20),
        "l": Schedule(steps=1300, batch_size=256, lr=1.2e-3, ema_decay=0.998, seed=20),
    },
    judge=Schedule(steps=3000, batch_size=512, lr=1e-3, ema_decay=0.998, seed=30),
    denoiser={
        "s": (_first_round(600, 41), _last_round(5500, 51)),
        "m": (_first_round(150, 42), _last_round(5000, 52)),
        "l": (_first_round(1140, 43), _last_round(3500, 53), _last_round(5400, 63, moved=0.5)),
    },
)
RECIPES = {"cpu": CPU}


class Training:
    """One run of a recipe; each property is a stage's result, made or resumed on first use."""

    def __init__(
        self,
        recipe: TrainingRecipe,
        folder: Path,
        device: torch.device,
        kept: dict[str, Any] | None = None,
    ) -> None:
        """Train in `folder`; `kept` are the records of shipped stages to take as they are."""
        self.recipe = recipe
        self.folder = folder
        self.device = device
        self.kept = kept or {}

    def keeps(self, stage: str, schedule: Schedule) -> bool:
        """Whether the shipped parts already hold this stage, made by this very schedule."""
        return stage in self.kept and self.kept[stage]["schedule"] == asdict(schedule)

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
        if self.kept:
            return parts.load_tokenizer()
        folder = self.folder / f"tokenizer-{_digest(self.lesson_texts)}"
        if not folder.exists():
            text.train_tokenizer(self.lesson_texts).save_pretrained(folder)
        return cast(PreTrainedTokenizerFast, PreTrainedTokenizerFast.from_pretrained(folder))

    @cached_property
    def lessons(self) -> text.Lessons:
        path = self.folder / f"lessons-{_digest(self.lesson_texts)}.pt"
        if not path.exists():
            lessons = text.teach(self.lesson_texts)
            _save_whole((lessons.texts, lessons.sentences, lessons.words), path)
        return text.Lessons(*torch.load(path, weights_only=True))

    def train_text_encoder(self, size: str) -> CLIPTextModel:
        schedule = self.recipe.text[size]
        if self.keeps(f"text-{size}", schedule):
            return parts.load_text_encoder(cast(parts.Size, size)).to(self.device)
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
            a, b, c = (t.to(self.device) for t in (ids[i, :length], ends[i], words[i]))
            return student.loss(a, b, c, said)

        return loss

    # --- pictures to latents and back ---

    @cached_property
    def vae(self) -> AutoencoderKL:
        """Encoder and decoder trained together, latents normalized."""
        if self.keeps("vae", self.recipe.vae):
            return parts.load_decoder("kl").to(self.device, **CHANNELS_LAST)
        torch.manual_seed(0)
        vae = autoencoder.new_kl().to(self.device, **CHANNELS_LAST)
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
        path = self.folder / f"latents-{_weights_digest(self.vae)}.pt"
        if not path.exists():
            _save_whole(autoencoder.encode(self.vae, self.images).cpu(), path)
        return cast(Tensor, torch.load(path, weights_only=True))

    @cached_property
    def moved_latents(self) -> list[Tensor]:
        """Latents of every row, a little shifted and scaled, once per view: as `latents`."""
        digest = _weights_digest(self.vae)
        paths = [self.folder / f"latents-{digest}-moved-{n}.pt" for n in range(MOVED_VIEWS)]
        for number, path in enumerate(paths):
            if not path.exists():
                moved = moves.moved(self.images, torch.Generator().manual_seed(70 + number))
                _save_whole(autoencoder.encode(self.vae, moved).cpu(), path)
        return [cast(Tensor, torch.load(path, weights_only=True)) for path in paths]

    # --- denoisers ---

    def train_denoiser(self, size: str) -> denoiser.Pairs:
        """The denoiser and its three bridges, trained on the drawn training rows.

        Each round starts from the last one's averaged weights; shipped rounds are taken as they
        are if they are the recipe's first ones, and all of them.
        """
        torch.manual_seed(40 + ord(size))
        pairs = denoiser.Pairs(
            denoiser.new_denoiser(size), [text.ENCODER_SIZES[s].width for s in parts.SIZES]
        )
        pairs = cast(denoiser.Pairs, cast(Any, pairs).to(self.device, **CHANNELS_LAST))
        kept = self.kept_rounds(size)
        if kept:
            load_pairs(pairs, cast(parts.Size, size))
        for number, schedule in enumerate(self.recipe.denoiser[size][kept:], kept + 1):
            name = f"denoiser-{size}-{number}"
            loss = _Deferred(partial(self._denoiser_loss, pairs, schedule))
            Stage(name, pairs, loss, schedule, self.folder).fit()
        return pairs.eval()

    def kept_rounds(self, size: str) -> int:
        """How many of the recipe's rounds the shipped denoiser has behind it; 0: another recipe's.

        The shipped weights are those after their last round, so they are of use only if every
        round they had is the recipe's.
        """
        had = sorted(name for name in self.kept if name.startswith(f"denoiser-{size}-"))
        rounds = self.recipe.denoiser[size]
        same = len(had) <= len(rounds) and all(
            self.keeps(f"denoiser-{size}-{n}", schedule)
            for n, schedule in enumerate(rounds[: len(had)], 1)
        )
        return len(had) if same else 0

    def _denoiser_loss(self, pairs: denoiser.Pairs, schedule: Round) -> Callable[..., Tensor]:
        train = self.rows(lambda r: r.split == "train" and r.drawn)
        views = [self.latents, *(self.moved_latents if schedule.moved else [])]
        clean = torch.stack([view[train] for view in views]).to(self.device)
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
            view = torch.zeros(schedule.batch_size, dtype=torch.long)
            if schedule.moved:
                moved = torch.rand(schedule.batch_size, generator=g) < schedule.moved
                view = torch.randint(1, len(clean), view.shape, generator=g) * moved
            picture = clean[view.to(self.device), row.to(self.device)]
            batch = denoiser.Batch(picture, ways[row, way], dropped)
            return denoiser.velocity_loss(pairs, alphas, batch, states, g)

        return loss

    @cached_property
    def training_texts(self) -> list[str]:
        rows = [r for r in self.dataset.rows if r.split == "train" and r.drawn]
        return sorted({t for row in rows for t in prompts.training_texts(row)})

    def text_states(self, size: str) -> denoiser.Texts:
        """What encoder `size` says of every training text, and of the empty one."""
        encoder = self.train_text_encoder(size)
        path = self.folder / f"states-{size}-{_weights_digest(encoder)}.safetensors"
        if not path.exists():
            ids = text.token_ids(self.tokenizer, ["", *self.training_texts]).to(self.device)
            states = text.encode(encoder, ids).half().cpu()
            _replace(lambda p: save_file({"states": states}, p), path)
        states = load_file(path)["states"].to(self.device)
        return denoiser.Texts(states[1:], states[:1])

    # --- judge ---

    @cached_property
    def judge_features(self) -> Tensor:
        """Frozen image features of every row in every view: float16 (views, N, 1280)."""
        path = self.folder / f"judge-features-{self.dataset.digest[:12]}.safetensors"
        if not path.exists():
            tower = self._new_judge().image.eval()
            features = torch.stack([judge_views.features(tower, self.images, v) for v in VIEWS])
            _replace(lambda p: save_file({"features": features.half().cpu()}, p), path)
        return load_file(path)["features"]

    def _new_judge(self) -> judge.Judge:
        torch.manual_seed(1000)
        model = judge.Judge(judge.JudgeConfig(vocab_size=text.VOCABULARY))
        folder = packages.installed_folder(*judge.IMAGENET)
        weights = torch.load(folder / "models" / judge.IMAGENET_FILE, weights_only=True)
        model.image.load_pretrained(weights)
        model.to(self.device)
        return model

    @cached_property
    def trained_judge(self) -> judge.Judge:
        """Projections and text tower, trained on every row but those the judge is tested on."""
        if self.keeps("judge", self.recipe.judge):
            shipped = parts.load_judge()
            shipped.to(self.device)
            return shipped
        model = self._new_judge()
        model.image.requires_grad_(False)
        loss = _Deferred(lambda: self._judge_loss(model))
        Stage("judge", model, loss, self.recipe.judge, self.folder).fit()
        model.eval()
        return model

    def _judge_loss(self, model: judge.Judge) -> Callable[..., Tensor]:
        seen = self.rows(lambda r: not r.judge_test)
        rows = [self.dataset.rows[i] for i in seen]
        features = self.judge_features[:, seen].to(self.device)
        ways = [prompts.training_texts(row) for row in rows]
        texts = sorted({t for way in ways for t in way})
        number = {t: i for i, t in enumerate(texts)}
        asked = torch.tensor([[number[t] for t in way] for way in ways])
        encoded = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        ids, mask = encoded["input_ids"].to(self.device), encoded["attention_mask"].to(self.device)
        label = _numbered(row.caption for row in rows).to(self.device)
        style = _numbered(row.style for row in rows).to(self.device)
        likely = torch.tensor(prompts.TRAINING_TEXT_SHARES)
        size = self.recipe.judge.batch_size

        def loss(step: int, g: torch.Generator) -> Tensor:
            i = torch.randint(len(rows), (size,), generator=g)
            view = torch.randint(len(VIEWS), (size,), generator=g)
            way = torch.multinomial(likely, size, True, generator=g)
            t = asked[i, way].to(self.device)
            i, view, way = (x.to(self.device) for x in (i, view, way))
            said = model.embed_texts(ids[t], mask[t])
            shown = model.embed_features(features[view, i].float())
            same_style = (style[i][:, None] == style[i][None, :]) | (way == STYLELESS)[None, :]
            same = (label[i][:, None] == label[i][None, :]) & same_style
            return judge.contrastive_loss(shown, said, same, model.log_scale.exp())

        return loss

    # --- the smaller decoder ---

    @cached_property
    def tiny(self) -> AutoencoderTiny:
        """The tiny decoder on the KL encoder's latents, and an encoder that imitates them."""
        if self.keeps("tiny", self.recipe.tiny):
            return parts.load_decoder("tiny").to(self.device)
        torch.manual_seed(5)
        tiny = autoencoder.new_tiny().to(self.device, **CHANNELS_LAST)
        train = self.rows(lambda r: r.split == "train")
        size = self.recipe.tiny.batch_size

        def loss(step: int, g: torch.Generator) -> Tensor:
            index = train[torch.randint(len(train), (size,), generator=g)]
            x = autoencoder.to_unit(self.images[index].to(self.device))
            z = self.latents[index].to(self.device)
            z = z + autoencoder.LATENT_NOISE * torch.randn(z.shape, generator=g).to(z)
            return autoencoder.tiny_loss(tiny, x, z)

        Stage("tiny", tiny, loss, self.recipe.tiny, self.folder).fit()
        return tiny.eval()


def load_pairs(pairs: denoiser.Pairs, size: parts.Size) -> None:
    """Put the shipped denoiser's and bridges' weights into `pairs`."""
    pairs.denoiser.load_state_dict(parts.load_denoiser(size).state_dict())
    for encoder, bridge in zip(parts.SIZES, pairs.bridges, strict=True):
        bridge.load_state_dict(parts.load_bridge(encoder, size).state_dict())


class _Deferred:
    """A loss whose data are prepared at the first step: a finished stage never needs them."""

    def __init__(self, make: Callable[[], Callable[..., Tensor]]) -> None:
        self._make = make

    @cached_property
    def _loss(self) -> Callable[..., Tensor]:
        return self._make()

    def __call__(self, step: int, g: torch.Generator) -> Tensor:
        return self._loss(step, g)


def _numbered(names: Iterable[str]) -> Tensor:
    """Equal names get equal numbers: int64 (N,)."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(name, len(numbers)) for name in names])


def _digest(texts: Sequence[str]) -> str:
    """A short name for texts, so that what was made of others is not taken for theirs."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def _weights_digest(model: Any) -> str:
    """A short name for a model's weights, as `_digest` is for texts."""
    h = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        h.update(name.encode())
        h.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return h.hexdigest()[:12]


def _replace(write: Callable[[Path], None], path: Path) -> None:
    unfinished = path.with_name(f"{path.name}.partial")
    write(unfinished)
    unfinished.replace(path)


def _save_whole(value: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(lambda p: torch.save(value, p), path)


@dataclass(frozen=True)
class Shipment:
    """Writes finished stages as the shipped parts, in the layouts the public classes load."""

    training: Training
    folder: Path = parts.PARTS_FOLDER

    def write(self) -> None:
        """Every part, the prompt lists, their real pictures and the checksums.

        All stages end before the first file is written; the new folder then takes the old
        one's place.
        """
        models = self._train()
        new = self.folder.with_name(f"{self.folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        self.training.tokenizer.save_pretrained(new / "tokenizer")
        denoiser.new_scheduler().save_pretrained(new / "scheduler")
        for name, model in models.items():
            _save_half(model, new / name)
        (new / RECORD).write_text(json.dumps(self._record(), indent=1) + "\n")
        parts.write_checksums(new)
        shutil.rmtree(self.folder, ignore_errors=True)
        new.replace(self.folder)
        write_prompts(self.training.dataset)

    def _train(self) -> dict[str, Any]:
        """Every stage run to its end: models by the folder they are shipped in."""
        models: dict[str, Any] = {
            "judge": self.training.trained_judge,
            "decoder/kl": self.training.vae,
            "decoder/tiny": self.training.tiny,
        }
        for size in parts.SIZES:
            models[f"text_encoder/{size}"] = self.training.train_text_encoder(size)
            pairs = self.training.train_denoiser(size)
            models[f"denoiser/{size}"] = pairs.denoiser
            for encoder, bridge in zip(parts.SIZES, pairs.bridges, strict=True):
                models[f"bridge/{encoder}-{size}"] = bridge
        return models

    def _record(self) -> dict[str, Any]:
        """How these weights were made: each stage's schedule and seconds, machine, versions."""
        return {
            "stages": self.training.kept | stage_records(self.training.folder),
            "wordnet_share": self.training.recipe.wordnet_share,
            "dataset_digest": self.training.dataset.digest,
            "device": _device_words(self.training.device),
            "versions": {package: version(package) for package in VERSIONED},
        }


def _save_half(model: Any, folder: Path) -> None:
    """Write a model's weights in fp16 in the layout of its class."""
    if isinstance(model, BridgeModule):
        save_bridge(model, folder)
        return
    shipped = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format).half()
    shipped.save_pretrained(folder)
    _forget_origin(folder / "config.json")


def _forget_origin(path: Path) -> None:
    """Drop the folder a config was once loaded from: it names this machine."""
    values = json.loads(path.read_text())
    if values.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(values, indent=2) + "\n")


def write_prompts(dataset: data.Dataset, folder: Path = prompts.PROMPTS_FOLDER) -> None:
    """The prompt lists, the labels R-precision chooses from, and the lists' real pictures."""
    lists = prompts.make_lists(dataset)
    prompts.write_lists(lists, folder)
    labels = sorted({row.caption for row in dataset.drawn().rows})
    (folder / "labels.json").write_text(json.dumps(labels, indent=0) + "\n")
    picture = {(r.code, r.style): i for i, r in enumerate(dataset.rows)}
    for name in (*evaluate.EVALUATED, evaluate.SAMPLES):
        index = [picture[p.code, p.style] for p in lists[name]]
        evaluate.write_real(torch.from_numpy(dataset.images[index]), folder / f"{name}.png")


def stage_records(folder: Path) -> dict[str, Any]:
    """Schedule and seconds of every finished stage, from its checkpoint."""
    paths = [path for path in sorted(folder.glob("*.pt")) if path.with_suffix(".jsonl").exists()]
    states = {p.stem: torch.load(p, map_location="cpu", weights_only=True) for p in paths}
    return {
        name: {"schedule": state["schedule"], "seconds": round(state["seconds"], 1)}
        for name, state in states.items()
        if state["step"] == state["schedule"]["steps"]
    }


def shipped_records(folder: Path = parts.PARTS_FOLDER) -> dict[str, Any]:
    """The records of the stages that made the shipped parts.

    Raises:
        TrainingError: the parts carry no record.
    """
    path = folder / RECORD
    if not path.exists():
        raise TrainingError(f"{path} is missing; train from nothing, without --keep-shipped")
    return cast(dict[str, Any], json.loads(path.read_text())["stages"])


def _device_words(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


@click.command(epilog="Example: python -m zoo.train --recipe cpu")
@click.option(
    "--recipe", "name", type=click.Choice(list(RECIPES)), default="cpu", show_default=True
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: all cores.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Checkpoints; default: in the cache, by recipe.",
)
@click.option(
    "--keep-shipped",
    is_flag=True,
    help="Take the stages recorded in zoo/parts as done; train only what differs from them.",
)
def main(name: str, threads: int | None, folder: Path | None, keep_shipped: bool) -> None:
    """Train every part of the zoo from nothing and write them to zoo/parts.

    Stopped at any moment, the same command goes on where it was.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(threads or os.cpu_count() or 1)
    folder = folder or packages.cache_folder() / name
    try:
        kept = shipped_records() if keep_shipped else None
        training = Training(RECIPES[name], folder, device, kept)
        Shipment(training).write()
    except ZooError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException("stopped; the same command goes on from here") from None


if __name__ == "__main__":
    main()
