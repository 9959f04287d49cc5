"""What the workers of the tests do."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdpack.engines.onnxruntime import THREADS_VARIABLE
from sdpack.errors import InfeasibleError
from sdpack.progress import Say


def open_squares() -> Any:
    return lambda task, say: task**2


@dataclass(frozen=True)
class OpenDying:
    """Workers that are killed at a task for as often as its file has room for."""

    folder: Path
    times: int

    def __call__(self) -> Any:
        return self.do

    def do(self, task: str, say: Say) -> str:
        marks = self.folder / task
        if task.startswith("deadly") and len(list(self.folder.glob(f"{task}.*"))) < self.times:
            marks.with_suffix(f".{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return task


def open_failing() -> Any:
    def fail(task: str, say: Say) -> str:
        if task == "infeasible":
            raise InfeasibleError("nothing fits", 7)
        return task

    return fail


def open_talking() -> Any:
    def talk(task: str, say: Say) -> str:
        say(f"doing {task}")
        return task

    return talk


def open_describing() -> Any:
    opened: list[str] = []

    def describe(task: str, say: Say) -> dict[str, Any]:
        opened.append(task)
        time.sleep(0.05)
        return {
            "pid": os.getpid(),
            "group": os.getpgid(0),
            "threads": os.environ[THREADS_VARIABLE],
            "tasks": list(opened),
        }

    return describe


def open_sleeping() -> Any:
    def sleep(task: Path, say: Say) -> None:
        task.write_text(str(os.getpid()))
        time.sleep(600)

    return sleep


def open_broken() -> Any:
    raise RuntimeError("no such toolchain")


def open_seeing_gpus() -> Any:
    return lambda task, say: os.environ.get("CUDA_VISIBLE_DEVICES")


@dataclass(frozen=True)
class OpenSlowOnce:
    """Workers that take a second for the first try of a task, and no time for the next."""

    folder: Path

    def __call__(self) -> Any:
        return self.do

    def do(self, task: str, say: Say) -> str:
        mark = self.folder / f"{task}.began"
        if not mark.exists():
            mark.touch()
            time.sleep(1)
        return task


@dataclass(frozen=True)
class OpenWaiting:
    """Workers that wait for the seconds that a task ends with, and leave a mark of each try."""

    folder: Path

    def __call__(self) -> Any:
        return self.do

    def do(self, task: str, say: Say) -> str:
        (self.folder / f"{task}.{os.getpid()}").touch()
        time.sleep(float(task.partition(" ")[2] or 0))
        return task
