"""The shipped parts: their folders, their checksums, and loading them.

parts/tokenizer              PreTrainedTokenizerFast
parts/text_encoder/{s,m,l}   CLIPTextModel
parts/bridge/{s,m,l}-{s,m,l} bridge; the first letter is the text encoder, the second the denoiser
parts/denoiser/{s,m,l}       UNet2DConditionModel
parts/decoder/{kl,tiny}      AutoencoderKL, AutoencoderTiny
parts/scheduler              DPMSolverMultistepScheduler
parts/judge                  Judge
parts/judge_resnet           ResnetJudge, the second judge
parts/SHA256SUMS             checksums of all these files, in sha256sum's format
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DPMSolverMultistepScheduler,
    UNet2DConditionModel,
)
from sdpack.errors import SourceError
from sdpack.evaluate.judge import Judge
from sdpack.evaluate.resnet_judge import ResnetJudge
from sdpack.export import bridge
from sdpack.export.bridge import BridgeModule
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from zoo.errors import WeightsError

PARTS_FOLDER = Path(__file__).parent / "parts"
CHECKSUMS = "SHA256SUMS"

Size = Literal["s", "m", "l"]
SIZES: tuple[Size, ...] = get_args(Size)
DecoderName = Literal["kl", "tiny"]
DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)


def verify(part: str, folder: Path = PARTS_FOLDER) -> Path:
    """Return the folder of `part`, such as "denoiser/s", after checking every file's checksum.

    Raises:
        WeightsError: a file is missing, cut short, changed, or was never shipped.
    """
    wanted = {name: h for name, h in _checksums(folder).items() if name.startswith(f"{part}/")}
    if not wanted:
        known = sorted({name.rpartition("/")[0] for name in _checksums(folder)})
        raise WeightsError(f"there is no part {part!r} in {folder}; parts are {', '.join(known)}")
    for name, checksum in wanted.items():
        _check(folder / name, checksum)
    return folder / part


def _checksums(folder: Path) -> dict[str, str]:
    path = folder / CHECKSUMS
    if not path.exists():
        raise WeightsError(f"{path} is missing: the zoo was not checked out whole")
    lines = [line.split("  ", 1) for line in path.read_text().splitlines() if line]
    return {name: checksum for checksum, name in lines}


def _check(path: Path, checksum: str) -> None:
    if not path.exists():
        raise WeightsError(f"{path} is missing; restore it with `git checkout -- {path}`")
    state = path.stat()
    seen = _sha256(path, state.st_size, state.st_mtime_ns)
    if seen != checksum:
        raise WeightsError(
            f"{path} ({state.st_size} bytes) has SHA-256 {seen}, shipped was {checksum}: it was "
            f"cut short or changed; restore it with `git checkout -- {path}`"
        )


@cache
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_checksums(folder: Path = PARTS_FOLDER) -> None:
    """Record the SHA-256 of every file under `folder`."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != CHECKSUMS)
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}"
        for p in files
    ]
    (folder / CHECKSUMS).write_text("\n".join(lines) + "\n")


def load_tokenizer(folder: Path = PARTS_FOLDER) -> PreTrainedTokenizerFast:
    return cast(
        PreTrainedTokenizerFast,
        PreTrainedTokenizerFast.from_pretrained(verify("tokenizer", folder)),
    )


def load_text_encoder(size: Size, folder: Path = PARTS_FOLDER) -> CLIPTextModel:
    path = verify(f"text_encoder/{size}", folder)
    return CLIPTextModel.from_pretrained(path, dtype=torch.float32).eval()


def load_denoiser(size: Size, folder: Path = PARTS_FOLDER) -> UNet2DConditionModel:
    path = verify(f"denoiser/{size}", folder)
    return cast(UNet2DConditionModel, UNet2DConditionModel.from_pretrained(path)).eval()


def load_decoder(name: DecoderName, folder: Path = PARTS_FOLDER) -> AutoencoderKL | AutoencoderTiny:
    cls = AutoencoderKL if name == "kl" else AutoencoderTiny
    return cast(
        "AutoencoderKL | AutoencoderTiny", cls.from_pretrained(verify(f"decoder/{name}", folder))
    ).eval()


def load_scheduler(folder: Path = PARTS_FOLDER) -> DPMSolverMultistepScheduler:
    return cast(
        DPMSolverMultistepScheduler,
        DPMSolverMultistepScheduler.from_pretrained(verify("scheduler", folder)),
    )


def load_judge(folder: Path = PARTS_FOLDER) -> Judge:
    judge: Judge = Judge.from_pretrained(verify("judge", folder), dtype=torch.float32)
    judge.eval()
    return judge


def load_second_judge(folder: Path = PARTS_FOLDER) -> ResnetJudge:
    judge: ResnetJudge = ResnetJudge.from_pretrained(
        verify("judge_resnet", folder), dtype=torch.float32
    )
    judge.eval()
    return judge


def load_bridge(encoder: Size, denoiser: Size, folder: Path = PARTS_FOLDER) -> BridgeModule:
    try:
        return bridge.load_bridge(verify(f"bridge/{encoder}-{denoiser}", folder))
    except SourceError as error:
        raise WeightsError(str(error)) from error
