"""Building TensorRT plans, with TensorRT-RTX or classic TensorRT, each build in its own process.

Both packages have the same Python API, so the builder takes the module as a handle. TensorRT-RTX
builds for a named compute capability on any machine, with or without a GPU. Classic TensorRT builds
for this machine's GPU. A failed build can leave its process unusable, so each build runs this file
with `python -m`.

The builder logs the device memory that a plan needs; the memory prediction is based on it.

The same graph gives the same plan, byte for byte. TensorRT's compiler orders some of its output by
address, and an environment and a path move all that comes after them. So its process runs at fixed
addresses, in the folder of the plan, and has of its caller's environment only what a machine needs
to find its libraries and GPUs.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import re
import signal
import site
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from sdpack.domain.input_range import InputRange
from sdpack.domain.precision import Runtime
from sdpack.engines.detect import jetson_model
from sdpack.errors import EngineError, UnsupportedGraphError

PLAN_FILE = "model.plan"
REFUSED = 3  # exit status; others mean that the builder could not work
REFUSING_CODES = (REFUSED, -signal.SIGSEGV, -signal.SIGABRT)  # some graphs it does not survive
SOURCE = "source"  # in the folder of the plan, the folder of the graph
KEPT_VARIABLES = ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
FIXED_VARIABLES = {"PATH": os.defpath, "PYTHONHASHSEED": "0"}
NO_RANDOMIZATION = 0x0040000  # ADDR_NO_RANDOMIZE of personality(2)
ASK = 0xFFFFFFFF
FACTS_FILE = "plan.json"
BUILD_TIMEOUT_S = 3600
TENSORRT_PACKAGES = {Runtime.TENSORRT_RTX: "tensorrt_rtx", Runtime.TENSORRT: "tensorrt"}
EXTRAS = {"tensorrt_rtx": "tensorrt-rtx", "tensorrt": "tensorrt"}  # sdpack's extras, by package
_MEMORY = re.compile(r"Total (Activation|Weights) Memory: (\d+) bytes")
_SERIOUS = ("ERROR", "INTERNAL_ERROR")

Sizes = tuple[int, ...]


def extra_of(package: str) -> str:
    """Return the extra of sdpack that installs "tensorrt_rtx" or "tensorrt".

    It is "" for the latter on a Jetson, where JetPack provides it.
    """
    return "" if package == "tensorrt" and jetson_model() is not None else EXTRAS[package]


@dataclass(frozen=True)
class Plan:
    """A built plan, and the device memory it needs according to its builder.

    Attributes:
        path: the plan's file.
        package: "tensorrt_rtx" or "tensorrt".
        version: version of the package.
        activation_bytes: scratch memory of one execution context.
        weight_bytes: memory in use while the engine is loaded.
    """

    path: Path
    package: str
    version: str
    activation_bytes: int
    weight_bytes: int


@dataclass(frozen=True)
class _Request:
    package: str
    onnx: str
    compute_capability: str
    inputs: dict[str, Any]


def build(
    package: str,
    onnx: Path,
    folder: Path,
    inputs: Mapping[str, InputRange],
    compute_capability: str = "",
) -> Plan:
    """Build model.plan and plan.json in `folder`, in a separate process.

    Args:
        package: "tensorrt_rtx" or "tensorrt".
        onnx: the graph.
        folder: folder for the plan.
        inputs: range of shapes for every input with a dynamic size.
        compute_capability: such as "SM86"; only for tensorrt_rtx.

    Raises:
        UnsupportedGraphError: the graph does not parse or build; gives the builder's last message.
        EngineError: the builder was killed, took too long, or is not installed.
        KeyboardInterrupt: Ctrl-C stopped the builder.
    """
    ranges = {name: asdict(given) for name, given in inputs.items()}
    source = folder / SOURCE
    source.symlink_to(onnx.parent.resolve(), target_is_directory=True)
    request = _Request(package, f"{SOURCE}/{onnx.name}", compute_capability, ranges)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=json.dumps(asdict(request)),
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            cwd=folder,
            env=_environment(package),
        )
    except subprocess.TimeoutExpired as cause:
        raise EngineError(
            f"{onnx}: {package} took longer than {BUILD_TIMEOUT_S} s to build it"
        ) from cause
    finally:
        source.unlink()
    if done.returncode == -signal.SIGINT:
        raise KeyboardInterrupt
    if done.returncode != 0 or not (folder / FACTS_FILE).exists():
        kind = UnsupportedGraphError if done.returncode in REFUSING_CODES else EngineError
        raise kind(f"{onnx}: {package} {_target(request)}: {_last_words(done)}")
    return read_plan(folder)


def read_plan(folder: Path) -> Plan:
    """Read the plan in a folder that `build` filled.

    Raises:
        EngineError: there is none.
    """
    try:
        facts = json.loads((folder / FACTS_FILE).read_text())
        return Plan(folder / PLAN_FILE, **facts)
    except (OSError, ValueError, TypeError) as cause:
        raise EngineError(f"{folder} holds no valid plan ({cause}); build it again") from cause


def _environment(package: str) -> dict[str, str]:
    """Return the variables of a build.

    The caller's PYTHONPATH differs between a terminal and a cluster's workers. The build gets the
    folders of what it imports, sdpack and the builder's package, except those of every process.
    """
    folders = dict.fromkeys(filter(None, map(_folder_of, ("sdpack", package))))
    others = [folder for folder in folders if folder not in site.getsitepackages()]
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return {**FIXED_VARIABLES, "PYTHONPATH": os.pathsep.join(others), **kept}


def _folder_of(package: str) -> str | None:
    """Return the folder from which a package is imported; None without the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return str(Path(spec.origin).absolute().parent.parent)


def _target(request: _Request) -> str:
    return f"for {request.compute_capability}" if request.compute_capability else "for this GPU"


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"ended with status {done.returncode} and no message"


def _build_here(request: _Request, folder: Path) -> None:
    """Build a plan in this process; exits with a message on failure."""
    trt = importlib.import_module(request.package)
    log = _logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(request.onnx):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        _refuse(
            "cannot parse the graph: "
            + (reasons[0].splitlines()[0] if reasons else "no reason given")
        )
    config = builder.create_builder_config()
    if request.compute_capability:
        config.num_compute_capabilities = 1
        capability = getattr(trt.ComputeCapability, request.compute_capability, None)
        if capability is None:
            sys.exit(f"this version does not support {request.compute_capability}")
        config.set_compute_capability(capability, 0)
    config.add_optimization_profile(_profile(builder, network, request.inputs))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        _refuse(
            "cannot build the engine: " + (log.serious[0] if log.serious else "no reason given")
        )
    (folder / PLAN_FILE).write_bytes(plan)
    facts = {
        "package": request.package,
        "version": trt.__version__,
        "activation_bytes": log.memory["Activation"],
        "weight_bytes": log.memory["Weights"],
    }
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1))


def _refuse(words: str) -> NoReturn:
    print(words, file=sys.stderr)
    sys.exit(REFUSED)


def _profile(builder: Any, network: Any, inputs: Mapping[str, Any]) -> Any:
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        if -1 not in tuple(tensor.shape):
            continue
        given = inputs.get(tensor.name)
        if given is None:
            sys.exit(f"the input {tensor.name} has dynamic sizes, but no range was given")
        profile.set_shape(tensor.name, given["smallest"], given["best"], given["largest"])
    return profile


def _logger(trt: Any) -> Any:
    """Return a logger that records memory figures and errors."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.memory = {"Activation": 0, "Weights": 0}
            self.serious: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            found = _MEMORY.search(message)
            if found:
                self.memory[found.group(1)] = int(found.group(2))
            if severity.name in _SERIOUS:
                self.serious.append(message.splitlines()[0])

    return Logger()


def _at_fixed_addresses() -> None:
    """Restart this process without address randomization, if the system permits."""
    libc = ctypes.CDLL(None)
    persona = libc.personality(ASK) if hasattr(libc, "personality") else -1
    if persona == -1 or persona & NO_RANDOMIZATION:
        return
    if libc.personality(persona | NO_RANDOMIZATION) != -1:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _end_at_ctrl_c() -> None:
    """Make Ctrl-C end the process at once.

    Python's own handler would run only after the compiler returns, two minutes later for SDXL's
    UNet.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # unless it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    _at_fixed_addresses()
    _end_at_ctrl_c()
    _build_here(_Request(**json.load(sys.stdin)), Path())
