"""Writing finished stages as the shipped parts."""

from __future__ import annotations

import copy
import json
import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from sdpack.export.bridge import BridgeModule, save_bridge

from zoo import parts
from zoo.data import prompt_lists, prompts
from zoo.data.dataset import Dataset
from zoo.errors import TrainingError
from zoo.evaluation import evaluate
from zoo.training import denoiser
from zoo.training.stages import Stages

RECORD = "training.json"
VERSIONED = ("torch", "diffusers", "transformers", "tokenizers")


@dataclass(frozen=True)
class Shipment:
    """Writes finished stages as the shipped parts, in the format that the public classes load."""

    stages: Stages
    folder: Path = parts.PARTS_FOLDER

    def write(self) -> None:
        """Write every part, the prompt lists, their real images and the checksums.

        All stages end before the first file is written; the new folder then replaces the old
        one.
        """
        models = self._train()
        text, run = self.stages.text, self.stages.run
        new = self.folder.with_name(f"{self.folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        text.tokenizer.save_pretrained(new / "tokenizer")
        denoiser.new_scheduler().save_pretrained(new / "scheduler")
        for name, model in models.items():
            _save_half(model, new / name)
        (new / RECORD).write_text(json.dumps(self._record(), indent=1) + "\n")
        parts.write_checksums(new)
        shutil.rmtree(self.folder, ignore_errors=True)
        new.replace(self.folder)
        write_prompts(run.dataset)

    def _train(self) -> dict[str, Any]:
        """Run every stage to its end; return the models by the folder they are shipped in."""
        text, denoisers = self.stages.text, self.stages.denoisers
        decoders, judge = self.stages.decoders, self.stages.judge
        models: dict[str, Any] = {
            "judge": judge.trained_judge,
            "judge_resnet": self.stages.second_judge.trained,
            "decoder/kl": decoders.vae,
            "decoder/tiny": decoders.tiny,
        }
        for size in parts.SIZES:
            models[f"text_encoder/{size}"] = text.encoder(size)
            pairs = denoisers.pairs(size)
            models[f"denoiser/{size}"] = pairs.denoiser
            for encoder, bridge in zip(parts.SIZES, pairs.bridges, strict=True):
                models[f"bridge/{encoder}-{size}"] = bridge
        return models

    def _record(self) -> dict[str, Any]:
        """Return the record of training: schedule and seconds of each stage, machine, versions."""
        run = self.stages.run
        recipe, dataset = run.recipe, run.dataset
        return {
            "stages": run.kept | stage_records(run.folder),
            "wordnet_share": recipe.wordnet_share,
            "dataset_digest": dataset.digest,
            "device": _device_words(run.device),
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
    """Remove the folder that a config was loaded from, which is a path on this machine."""
    values = json.loads(path.read_text())
    if values.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(values, indent=2) + "\n")


def write_prompts(dataset: Dataset, folder: Path = prompts.PROMPTS_FOLDER) -> None:
    """Write the prompt lists, the labels for R-precision, and the real images of the lists."""
    lists = prompt_lists.make_lists(dataset)
    prompts.write_lists(lists, folder)
    labels = sorted({row.caption for row in dataset.drawn().rows})
    (folder / "labels.json").write_text(json.dumps(labels, indent=0) + "\n")
    picture = {(r.code, r.style): i for i, r in enumerate(dataset.rows)}
    for name in (*evaluate.EVALUATED, "by_category", evaluate.SAMPLES):
        index = [picture[p.code, p.style] for p in lists[name]]
        evaluate.write_real(torch.from_numpy(dataset.images[index]), folder / f"{name}.png")


def stage_records(folder: Path) -> dict[str, Any]:
    """Return the schedule and seconds of every finished stage, from its checkpoint."""
    paths = [path for path in sorted(folder.glob("*.pt")) if path.with_suffix(".jsonl").exists()]
    states = {p.stem: torch.load(p, map_location="cpu", weights_only=True) for p in paths}
    return {
        name: {"schedule": state["schedule"], "seconds": round(state["seconds"], 1)}
        for name, state in states.items()
        if state["step"] == state["schedule"]["steps"]
    }


def shipped_records(folder: Path = parts.PARTS_FOLDER) -> dict[str, Any]:
    """Return the records of the stages that made the shipped parts.

    Raises:
        TrainingError: the parts have no record.
    """
    path = folder / RECORD
    if not path.exists():
        raise TrainingError(f"{path} is missing; train from scratch, without --keep-shipped")
    return cast(dict[str, Any], json.loads(path.read_text())["stages"])


def _device_words(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"
