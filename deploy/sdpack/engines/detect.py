"""Detection of this machine's memory, GPU and packages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sdpack.domain.precision import Runtime
from sdpack.errors import MissingPackageError, ProfileError
from sdpack.units import format_bytes

MEMINFO = Path("/proc/meminfo")
JETSON = Path("/proc/device-tree/model")
CONTEXT_BYTES = 320 * 2**20
SYSTEM_BYTES = 640 * 2**20
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")  # TensorRT-RTX builds for these
# Other names of packages with the same module, by CUDA version or maker.
PACKAGE_ALIASES = {"tensorrt": ("tensorrt_cu13", "tensorrt_cu12")}


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as nvidia-smi reports it; `used_bytes` are those of other programs."""

    name: str
    memory_bytes: int
    used_bytes: int
    compute_capability: str
    driver: str

    @property
    def sm(self) -> str:
        """The architecture as compilers name it, such as "SM86"."""
        return "SM" + self.compute_capability.replace(".", "")


@dataclass(frozen=True)
class Package:
    """A package sdpack may use: its purpose, the extra that installs it, and its version if any."""

    name: str
    module: str
    purpose: str
    extra: str
    version: str | None

    @property
    def here(self) -> bool:
        """Whether its module can be imported, whichever package it is from."""
        return _is_here(self.module)


def _is_here(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


_PACKAGES = (
    ("onnxruntime", "onnxruntime", "run on the CPU", "cpu"),
    ("onnxruntime-gpu", "onnxruntime", "run on an NVIDIA GPU (in place of onnxruntime)", "gpu"),
    ("cuda-bindings", "cuda.bindings", "run TensorRT engines, see a GPU's memory", "gpu"),
    ("tensorrt_rtx_cu13", "tensorrt_rtx", "build and run TensorRT-RTX engines", "tensorrt-rtx"),
    ("tensorrt", "tensorrt", "finish and run classic TensorRT engines", "tensorrt"),
    ("torch", "torch", "export checkpoints", "build"),
    ("diffusers", "diffusers", "export checkpoints", "build"),
    ("transformers", "transformers", "export checkpoints", "build"),
    ("optimum", "optimum", "export checkpoints", "build"),
    ("onnx", "onnx", "make precision variants", "build"),
    ("onnxscript", "onnxscript", "export checkpoints", "build"),
    ("onnx-ir", "onnx_ir", "make precision variants", "build"),
    ("safetensors", "safetensors", "read checkpoints", "build"),
    ("huggingface_hub", "huggingface_hub", "download checkpoints from the hub", "build"),
    ("gguf", "gguf", "read models in GGUF files", "gguf"),
    ("rapidocr-onnxruntime", "rapidocr_onnxruntime", "judge the text in images", "ocr"),
    ("ray", "ray", "build on several machines", "ray"),
    ("fsspec", "fsspec", "share artifacts between machines", "ray"),
    ("s3fs", "s3fs", "share artifacts in an object store", "s3"),
    ("altair", "altair", "draw charts", "report"),
    ("vl-convert-python", "vl_convert", "draw charts", "report"),
    ("Jinja2", "jinja2", "draw charts", "report"),
    ("scipy", "scipy", "draw charts", "report"),
    ("fastapi", "fastapi", "serve a bundle", "serve"),
    ("uvicorn", "uvicorn", "serve a bundle", "serve"),
    ("prometheus-client", "prometheus_client", "serve a bundle", "serve"),
)


def packages() -> list[Package]:
    """Every package sdpack may use, installed or not."""
    return [
        Package(name, module, purpose, extra, _version(name, module))
        for name, module, purpose, extra in _PACKAGES
    ]


def _version(name: str, module: str) -> str | None:
    if not _is_here(module):
        return None
    for known in (name, *PACKAGE_ALIASES.get(name, ())):
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(known)
    return None


def require(runtime: Runtime) -> None:
    """Check that everything a build for this runtime uses is installed.

    Raises:
        MissingPackageError: a package is missing.
    """
    here = {package.module for package in packages() if package.here}
    for package in packages():
        if package.extra == "build" and not package.here:
            raise MissingPackageError(package.name, "build", "building a bundle")
    if "onnxruntime" not in here:
        raise MissingPackageError("onnxruntime", "cpu", "measuring mixes")
    if runtime is Runtime.TENSORRT_RTX and "tensorrt_rtx" not in here:
        raise MissingPackageError("tensorrt_rtx_cu13", "tensorrt-rtx", f"building for {runtime}")


def require_charts() -> None:
    """Check that everything charts are drawn with is installed.

    Raises:
        MissingPackageError: a package is missing.
    """
    for package in packages():
        if package.extra == "report" and not package.here:
            raise MissingPackageError(package.name, "report", "drawing charts")


def gpus() -> list[Gpu]:
    """The NVIDIA GPUs that nvidia-smi lists; none without nvidia-smi or a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    fields = "name,memory.total,memory.used,compute_cap,driver_version"
    command = [program, f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpus(done.stdout)


def parse_gpus(listing: str) -> list[Gpu]:
    """The GPUs of nvidia-smi's comma-separated lines; incomplete lines are skipped."""
    found = []
    for line in listing.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 5 and cells[1].isdigit() and cells[2].isdigit():
            total, used = (int(cell) * 2**20 for cell in cells[1:3])
            found.append(Gpu(cells[0], total, used, cells[3], cells[4]))
    return found


def memory_bytes(meminfo: Path = MEMINFO) -> int:
    """The machine's memory in bytes.

    Raises:
        ProfileError: the system does not report it.
    """
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if line)
        return int(fields["MemTotal"].split()[0]) * 1024
    except (OSError, KeyError, ValueError) as cause:
        raise ProfileError(
            f"{meminfo} does not report this machine's memory; write a profile by hand"
        ) from cause


def jetson_model(path: Path = JETSON) -> str | None:
    """Return the name of this Jetson, or None on other machines."""
    try:
        model = path.read_bytes().rstrip(b"\0").decode(errors="replace")
    except OSError:
        return None
    return model if "jetson" in model.lower() else None


def detected_profile(context_bytes: Callable[[], int] = lambda: 0) -> str:
    """Return a profile of this machine as YAML, with comments on measured and assumed values.

    Args:
        context_bytes: measures the size of a CUDA context on the GPU; returns 0 if it cannot. It is
            called after the memory in use was read, because measuring takes a context itself.
    """
    host_bytes, jetson = memory_bytes(), jetson_model()
    if jetson is not None:
        return _jetson_profile(jetson, host_bytes).yaml
    cards = gpus()
    if cards:
        card = max(cards, key=lambda card: card.memory_bytes)
        return _gpu_profile(card, context_bytes(), host_bytes).yaml
    return _cpu_profile(host_bytes).yaml


@dataclass(frozen=True)
class _DetectedDevice:
    """The properties of this machine, and their sources."""

    name: str
    description: str
    runtime: Runtime
    capability: str | None
    total_bytes: int
    reserve_bytes: int
    reserve_source: str
    bandwidth: str
    bandwidth_source: str
    host_bytes: int
    unified: bool

    @property
    def yaml(self) -> str:
        """A profile, with comments."""
        lines = [
            "schema: 1",
            f"name: {self.name}",
            f"description: {_quoted(self.description)}",
            f"runtime: {self.runtime}",
            *([f'compute_capability: "{self.capability}"'] if self.capability else []),
            "memory:",
            f"  total: {self.total_bytes // 2**20}MiB",
            f"  reserve: {-(-self.reserve_bytes // 2**20)}MiB",
            f"  reserve_source: {_quoted(self.reserve_source)}",
            *(["  unified: true"] if self.unified else []),
            f"  bandwidth: {self.bandwidth}  # {self.bandwidth_source}",
            f"host_memory: {self.host_bytes // 2**20}MiB",
            "shapes: {batch: 1, height: 512, width: 512}",
        ]
        return "\n".join(lines) + "\n"


def _jetson_profile(model: str, host_bytes: int) -> _DetectedDevice:
    return _DetectedDevice(
        name="this-jetson",
        description=model,
        runtime=Runtime.TENSORRT,
        capability="8.7",
        total_bytes=host_bytes,
        reserve_bytes=2 * 2**30,
        reserve_source="estimate: system, CUDA context and Python process of a headless Jetson",
        bandwidth="68GB/s",
        bandwidth_source="assumed: an Orin Nano's",
        host_bytes=host_bytes,
        unified=True,
    )


def _gpu_profile(gpu: Gpu, context_bytes: int, host_bytes: int) -> _DetectedDevice:
    """The profile of a card.

    Args:
        context_bytes: measured size of a CUDA context; 0 if it was not measured.
    """
    context = context_bytes or CONTEXT_BYTES
    source = (
        f"{format_bytes(gpu.used_bytes)} in use by other programs when this was written, and "
        f"{format_bytes(context)} for a CUDA context, "
        f"{'as measured here' if context_bytes else 'an estimate'}"
    )
    rtx = gpu.compute_capability in RTX_CAPABILITIES
    return _DetectedDevice(
        name="this-gpu",
        description=gpu.name,
        runtime=Runtime.TENSORRT_RTX if rtx else Runtime.ONNXRUNTIME_CUDA,
        capability=gpu.compute_capability,
        total_bytes=gpu.memory_bytes,
        reserve_bytes=gpu.used_bytes + context,
        reserve_source=source,
        bandwidth="200GB/s",
        bandwidth_source="assumed: nvidia-smi does not report it; look it up",
        host_bytes=host_bytes,
        unified=False,
    )


def _cpu_profile(host_bytes: int) -> _DetectedDevice:
    return _DetectedDevice(
        name="this-cpu",
        description=f"This machine's CPU, {len(os.sched_getaffinity(0))} cores",
        runtime=Runtime.ONNXRUNTIME_CPU,
        capability=None,
        total_bytes=host_bytes,
        reserve_bytes=min(SYSTEM_BYTES, host_bytes // 2),
        reserve_source="estimate: a headless Linux and its services",
        bandwidth="20GB/s",
        bandwidth_source="assumed: not measured",
        host_bytes=host_bytes,
        unified=True,
    )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "/").replace('"', "'") + '"'
