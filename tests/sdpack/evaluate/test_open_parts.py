from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from numpy.typing import NDArray
from sdpack.domain.placement import Role
from sdpack.evaluate.open_parts import OPEN_BYTES, OpenParts
from sdpack.evaluate.pipeline_spec import LoadablePart


@dataclass
class Parts:
    """Loads parts that note when they are opened and closed."""

    log: list[str] = field(default_factory=list)

    def part(self, name: str, size: int = 1) -> LoadablePart:
        return LoadablePart(name, lambda: Opened(name, self.log), bytes=size)


class Opened:
    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log
        log.append(f"open {name}")

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {}

    def close(self) -> None:
        self.log.append(f"close {self.name}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def test_a_part_stays_open_until_its_role_needs_another() -> None:
    made, opened = Parts(), OpenParts()
    one, other = made.part("unet a"), made.part("unet b")
    first = opened.session(Role.DENOISER, one)
    assert opened.session(Role.DENOISER, one) is first
    opened.session(Role.DECODER, made.part("vae"))
    opened.session(Role.DENOISER, other)
    assert made.log == ["open unet a", "open vae", "close unet a", "open unet b"]


def test_parts_that_leave_no_room_for_a_large_one_are_closed_first() -> None:
    made, opened = Parts(), OpenParts()
    opened.session(Role.TEXT_ENCODER, made.part("clip"))
    opened.session(Role.DENOISER, made.part("unet", OPEN_BYTES))
    assert made.log == ["open clip", "close clip", "open unet"]
    opened.session(Role.DECODER, made.part("vae"))
    assert made.log[3:] == ["close unet", "open vae"]
    assert opened.opening_s >= 0
