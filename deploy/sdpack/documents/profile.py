"""Device profiles: memory, runtime and supported precisions of a device.

sdpack profiles                  # list the shipped profiles
sdpack profiles show 4gb-gpu     # show one as YAML
sdpack profiles detect           # write one for this machine
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    field_serializer,
    model_validator,
)

from sdpack.documents.document import Document, read_document
from sdpack.domain.placement import Guidance, Loading
from sdpack.domain.precision import ComputeCapability, Precision, Runtime, runnable, why_not
from sdpack.errors import InputError, ProfileError
from sdpack.units import format_bytes, parse_bytes

MOST_BUDGETS = 64  # maximum for one study


def _bytes(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r} is not a size in bytes; write it like 4GiB")
    try:
        return parse_bytes(value)
    except InputError as error:
        raise ValueError(str(error)) from error


def _bytes_per_second(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return _bytes(value)
    if not isinstance(value, str) or not value.endswith("/s"):
        raise ValueError(f"{value!r} is not a bandwidth; write it like 192GB/s")
    return _bytes(value.removesuffix("/s"))


def _capability(value: Any) -> ComputeCapability:
    if isinstance(value, tuple | list) and [type(step) for step in value] == [int, int]:
        return value[0], value[1]
    match = re.fullmatch(r"(\d{1,2})\.(\d)", str(value))
    if match is None:
        raise ValueError(f"{value!r} is not a compute capability; write it like 8.6")
    return int(match.group(1)), int(match.group(2))


def _flops(value: Any) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([GT])FLOPS", str(value))
    if match is None:
        raise ValueError(f"{value!r} is not a throughput; write it like 12TFLOPS")
    return int(Decimal(match.group(1)) * {"G": 10**9, "T": 10**12}[match.group(2)])


Bytes = Annotated[int, BeforeValidator(_bytes)]
FlopsPerSecond = Annotated[int, BeforeValidator(_flops), Field(gt=0)]
BytesPerSecond = Annotated[int, BeforeValidator(_bytes_per_second)]
Capability = Annotated[ComputeCapability, BeforeValidator(_capability)]


class DeviceMemory(Document):
    """The device's total memory, and the reserve that is in use before the first part is loaded."""

    total: Bytes
    reserve: Bytes
    reserve_source: str = Field(min_length=1)
    unified: bool = False
    bandwidth: BytesPerSecond

    @model_validator(mode="after")
    def _leaves_something(self) -> DeviceMemory:
        if self.reserve >= self.total:
            raise ValueError(
                f"the reserve of {format_bytes(self.reserve)} leaves nothing of "
                f"{format_bytes(self.total)}; lower it"
            )
        return self


class Throughput(Document):
    """The device's peak rate of products, for predicting the time of an image.

    Attributes:
        fp16: operations (multiplications and additions) per second on fp16 inputs with sums in
            fp32, without sparsity; on tensor cores where there are some.
        source: where the figure is from.
    """

    fp16: FlopsPerSecond
    source: str = Field(min_length=1)

    @field_serializer("fp16")
    def _as_written(self, flops: int) -> str:
        return f"{(Decimal(flops) / 10**12).normalize():f}TFLOPS"


Size = tuple[int, int]
"""Height and width of an image, in pixels."""


def parse_sizes(text: str) -> tuple[Size, ...]:
    """Parse "512,768x512" (width x height) into heights and widths.

    Raises:
        InputError: a word is not a size. The pipeline checks whether it can draw a size.
    """
    sizes: list[Size] = []
    for word in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,5})(?:\s*[xX×]\s*(\d{1,5}))?\s*", word)  # noqa: RUF001
        if match is None:
            raise InputError(f"{word.strip()!r} is not a size in pixels; write 512 or 768x512")
        width, height = int(match[1]), int(match[2] or match[1])
        if not width or not height:
            raise InputError(f"{word.strip()}: both sides must be at least one pixel")
        sizes.append((height, width))
    return tuple(dict.fromkeys(sizes))


def parse_batch(text: str) -> int:
    """Parse "4" or "1-4" into the maximum number of images per batch.

    Raises:
        InputError: the text is neither, or excludes single images, which every bundle draws.
    """
    match = re.fullmatch(r"\s*(?:(\d{1,4})\s*-\s*)?(\d{1,4})\s*", text)
    low, high = (int(match[1] or 1), int(match[2])) if match else (0, 0)
    if not 0 < low <= high:
        raise InputError(f"{text!r} is not a batch size; write 4, or 1-4")
    if low > 1:
        raise InputError(
            f"{text!r} excludes single images, which every bundle draws; write {high}, or 1-{high}"
        )
    return high


def format_size(size: Size) -> str:
    """Format a size as "768x512": width x height."""
    height, width = size
    return f"{width}x{height}"


class Shapes(Document):
    """The largest batch: number of images, and their height and width in pixels."""

    batch: PositiveInt = 1
    height: PositiveInt = 512
    width: PositiveInt = 512


class Profile(Document):
    """One device.

    Attributes:
        max_seconds: the most seconds that an image may take; None for any.
    """

    version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    description: str
    runtime: Runtime
    compute_capability: Capability | None = None
    memory: DeviceMemory
    host_memory: Bytes
    precisions: tuple[Precision, ...] | None = None
    shapes: Shapes = Shapes()
    loading: tuple[Loading, ...] = Field(tuple(Loading), min_length=1)
    guidance: tuple[Guidance, ...] = Field(tuple(Guidance), min_length=1)
    throughput: Throughput | None = None
    max_seconds: PositiveFloat | None = None

    @model_validator(mode="after")
    def _device_and_runtime_agree(self) -> Profile:
        if self.runtime.on_gpu and self.compute_capability is None:
            raise ValueError(f"compute_capability is missing; {self.runtime} runs on a GPU")
        if not self.runtime.on_gpu and self.compute_capability is not None:
            raise ValueError(f"compute_capability does not apply to {self.runtime}; remove it")
        beyond = [p for p in self.precisions or () if p not in self.device_precisions]
        if beyond:
            reason = why_not(self.runtime, self.compute_capability, beyond[0])
            raise ValueError(
                f"precisions: the device cannot run {', '.join(beyond)} ({reason}); "
                f"it runs {', '.join(self.device_precisions)}"
            )
        if self.precisions == ():
            raise ValueError("precisions is empty; list some, or remove it")
        return self

    @classmethod
    def load(cls, name_or_path: str | PathLike[str]) -> Profile:
        """Load a shipped profile by name, such as "4gb-gpu", or one from a YAML file.

        Raises:
            ProfileError: no such profile or file, or it is invalid.
        """
        return find_profile(os.fspath(name_or_path))

    @property
    def device_precisions(self) -> tuple[Precision, ...]:
        """The precisions that the runtime supports for this compute capability, widest first."""
        return runnable(self.runtime, self.compute_capability)

    @property
    def allowed_precisions(self) -> tuple[Precision, ...]:
        """The device's precisions that the profile allows, widest first."""
        narrowed = self.precisions or self.device_precisions
        return tuple(p for p in self.device_precisions if p in narrowed)

    @property
    def budget_bytes(self) -> int:
        """Limit of a pipeline's peak memory: total minus reserve."""
        return self.memory.total - self.memory.reserve

    @property
    def stated_throughput(self) -> int:
        """The device's peak rate in fp16, in operations per second.

        Raises:
            ProfileError: the profile states none.
        """
        if self.throughput is None:
            raise ProfileError(
                f"profile {self.name}: throughput is missing, so the time of an image on its "
                "device cannot be predicted; add it, such as `throughput: {fp16: 12TFLOPS, "
                "source: data sheet}`, or set no limit on the seconds per image"
            )
        return self.throughput.fp16

    @property
    def sm(self) -> str:
        """The compute capability as compilers write it, such as "SM86"; empty on a CPU."""
        if self.compute_capability is None:
            return ""
        return "SM{}{}".format(*self.compute_capability)


def profiles_folder() -> Path:
    """Return the folder of the shipped profiles: in the package, or in its source tree."""
    package = Path(__file__).parents[1]
    installed = package / "profiles"
    return installed if installed.is_dir() else package.parents[1] / "profiles"


def shipped_profiles() -> list[Profile]:
    """Return the shipped profiles: GPUs, then CPUs, each by memory.

    Raises:
        ProfileError: one is damaged.
    """
    profiles = [read_profile(path) for path in profiles_folder().glob("*.yaml")]
    return sorted(profiles, key=lambda p: (not p.runtime.on_gpu, p.memory.total, p.name))


def read_profile(path: Path) -> Profile:
    """Read a profile from a YAML file.

    Raises:
        ProfileError: the file is missing, is not YAML, or is invalid; names line, key and value.
    """
    return read_document(path, Profile, ProfileError)


def find_profile(name: str) -> Profile:
    """Return a shipped profile by name, or the one in the file at this path.

    Raises:
        ProfileError: no such profile or file, or it is invalid.
    """
    return read_profile(profile_path(name))


def profile_path(name: str) -> Path:
    """Return the file of a shipped profile by name, or the path itself.

    Raises:
        ProfileError: no such profile or file.
    """
    shipped = profiles_folder() / f"{name}.yaml"
    if re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name) and shipped.is_file():
        return shipped
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    names = sorted(p.stem for p in profiles_folder().glob("*.yaml"))
    near = difflib.get_close_matches(name, names, n=1)
    meant = f"; did you mean {near[0]}?" if near else "."
    raise ProfileError(
        f"no profile {name!r}{meant} Give one of {', '.join(names)}, or a .yaml file"
    )


def parse_budgets(asked: str | Sequence[str | int]) -> tuple[int, ...]:
    """Parse budgets into bytes, ascending.

    Args:
        asked: a range such as "8MiB:64MiB:8", or sizes and profile names such as "16MiB,4gb-gpu",
            or a list of these.

    Raises:
        InputError: a budget is invalid, or there are more than `MOST_BUDGETS`.
    """
    if isinstance(asked, str) and ":" in asked:
        return _evenly(asked)
    words = asked.split(",") if isinstance(asked, str) else asked
    budgets = tuple(sorted({_budget(str(word).strip()) for word in words}))
    if not 1 <= len(budgets) <= MOST_BUDGETS:
        raise InputError(f"a study takes 1 to {MOST_BUDGETS} budgets, not {len(budgets)}")
    return budgets


def _evenly(text: str) -> tuple[int, ...]:
    words = text.split(":")
    if len(words) != 3 or not words[2].strip().isdecimal():
        raise InputError(f"{text!r} is not a range of budgets; write it like 8MiB:64MiB:8")
    first, last, count = parse_bytes(words[0]), parse_bytes(words[1]), int(words[2])
    if not 2 <= count <= MOST_BUDGETS or first >= last:
        raise InputError(
            f"{text!r}: give the smaller budget first, and 2 to {MOST_BUDGETS} of them; "
            "like 8MiB:64MiB:8"
        )
    step = (last - first) / (count - 1)
    return tuple(sorted({round(first + step * number) for number in range(count)}))


def _budget(word: str) -> int:
    try:
        return parse_bytes(word)
    except InputError as no_size:
        try:
            return find_profile(word).budget_bytes
        except ProfileError as no_profile:
            raise InputError(
                f"unknown budget {word!r}: neither a size like 24MiB nor a profile ({no_profile})"
            ) from no_size
