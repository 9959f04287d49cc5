"""sdpack's quantization compared with other tools: python -m benchmarks.quantization_tools

The same weights and calibration inputs go into sdpack and into the quantizers of ONNX Runtime,
NVIDIA ModelOpt and Olive, each in its own environment. The zoo's largest denoiser is judged by its
images. `--full` takes a UNet of Stable Diffusion 1's size with random weights, judged by its output
on inputs that were not used for calibration.

sdpack calibrates once for all its recipes: the first row includes that time, and int8 the time to
measure the layers' sensitivity, which mixed recipes use again. Other tools calibrate for each
recipe.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx
from rich.console import Console
from rich.table import Table
from sdpack.documents.catalog_files import default_catalog
from sdpack.documents.profile import find_profile
from sdpack.domain.estimate import mean_estimate
from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision
from sdpack.engines.onnxruntime import load
from sdpack.pack.candidates import Candidates
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.request import BuildRequest
from sdpack.pack.toolchain import open_toolchain
from sdpack.quantization.layers import layers
from sdpack.rewrite.onnx_file import MODEL_FILE, files_of, read
from sdpack.store.artifacts import CACHE_VARIABLE, cache_folder

from benchmarks.environments import TORCH, interpreter
from benchmarks.measured_on import machine_and_versions
from benchmarks.metering import take
from benchmarks.mix_drawing import Drawn, MixDrawing

RIVALS = Path(__file__).parent / "rivals"
ENVIRONMENTS = {
    "modelopt": ("nvidia-modelopt[onnx]==0.47.0",),
    "olive": ("olive-ai==0.13.0", "onnxruntime==1.32.0", "requests==2.34.2"),
}
OTHERS = (
    ("onnxruntime", "int8"),
    ("onnxruntime", "int4"),
    ("onnxruntime", "int4 HQQ"),
    ("modelopt", "int8"),
    ("modelopt", "int4 RTN"),
    ("modelopt", "int4 AWQ"),
    ("olive", "int4 RTN"),
    ("olive", "int4 HQQ"),
    ("olive", "int4 k-quant"),
)
TOOLS = tuple(dict.fromkeys(tool for tool, _ in OTHERS))
OURS = ("int8", "w8", "w4", "w4:64", "w4:128", "mixed@5", "mixed@6")
FULL = ("int8", "w8", "w4", "mixed@5")
LIMIT_S = 1800.0
HEADS = ("tool", "recipe", "layers", "size", "output error", "seconds", "private memory")
DRAWN = ("latent PSNR", "judge similarity, against fp32")


@dataclass(frozen=True)
class Subject:
    """A graph to quantize, and how it is judged.

    Attributes:
        batches: folder of calibration inputs.
        held: inputs that are not used for calibration.
        draw: draws images with another graph instead of this one; None if that makes no sense.
    """

    name: str
    graph: Path
    batches: Path
    held: Mapping[str, np.ndarray]
    evaluation: MixDrawing | None = None
    pictures: int = 0

    @property
    def folder(self) -> Path:
        """Where the files of a comparison go, beside the calibration inputs."""
        return self.batches.parent

    def drawn(self, graph: Path) -> Drawn | None:
        if self.evaluation is None:
            return None
        return self.evaluation.draw({Role.DENOISER: graph}, self.pictures)

    def output(self, graph: Path) -> np.ndarray:
        with load(graph) as session:
            (output,) = session.run(self.held).values()
        return output.astype(np.float64)


@contextmanager
def zoo(folder: Path, pictures: int) -> Iterator[Subject]:
    """Return the largest denoiser of the zoo, in the mix of the largest parts."""
    mix = Mix.of(
        Variant(Role.TEXT_ENCODER, "l", Precision.FP32, "l"),
        Variant(Role.DENOISER, "l", Precision.FP32),
        Variant(Role.DECODER, "kl", Precision.FP32),
    )
    request = BuildRequest(find_profile("cpu-2gb"), default_catalog(), folder / "unused")
    with open_toolchain(Candidates(request)) as toolchain:
        graph = toolchain.sources.path(mix.denoiser)
        batches = folder / "batches"
        batches.mkdir()
        calibration_inputs = toolchain.calibration.inputs
        *given, held = calibration_inputs.batches(mix.denoiser)
        for number, batch in enumerate(given):
            np.savez(batches / f"{number:04}.npz", allow_pickle=False, **batch)
        yield Subject("zoo", graph, batches, held, MixDrawing(toolchain, mix), pictures)


def full_size(folder: Path) -> Subject:
    """Return Stable Diffusion 1's UNet with random weights, exported once."""
    import torch
    from sdpack.documents.conditioning import Conditioning
    from sdpack.export.denoiser import DenoiserPart
    from sdpack.export.graph import export

    from benchmarks.random_models import unet

    exported = cache_folder() / "benchmarks" / "unet-860m"
    if not (exported / "export.json").exists():
        exported.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        part = DenoiserPart(unet().eval(), Conditioning())
        (exported / "export.json").write_text(str(export(part, exported)))
    batches = folder / "batches"
    batches.mkdir()
    rng = np.random.default_rng(0)
    *given, held = [
        {
            "sample": rng.standard_normal((2, 4, 32, 32), np.float32),
            "timestep": np.asarray([timestep], np.float32),
            "encoder_hidden_states": rng.standard_normal((2, 77, 768), np.float32),
        }
        for timestep in (980, 700, 400, 100, 550)
    ]
    for number, batch in enumerate(given):
        np.savez(batches / f"{number}.npz", allow_pickle=False, **batch)
    return Subject("UNet of 860 M", exported / MODEL_FILE, batches, held)


@dataclass
class PrecisionComparison:
    """One table."""

    subject: Subject
    console: Console

    def __post_init__(self) -> None:
        self.wanted = self.subject.output(self.subject.graph)
        self.drawn = self.subject.drawn(self.subject.graph)
        self.layers = {x.name: x.size for x in layers(read(self.subject.graph))}
        heads = HEADS if self.drawn is None else (*HEADS, *DRAWN)
        self.table = Table(*heads, title=f"ways to quantize: {self.subject.name}")
        self.row("", "fp32", self.subject.graph, "", "")

    def row(self, tool: str, recipe: str, graph: Path, seconds: str, memory: str) -> None:
        """Judge a graph."""
        off = self.subject.output(graph) - self.wanted
        error = 10 * np.log10(max(1e-20, float((off**2).sum() / (self.wanted**2).sum())))
        size = sum(path.stat().st_size for path in files_of(graph))
        cells = [tool, recipe, str(len(self.taken(graph)) or ""), f"{size / 2**20:.1f} MiB"]
        cells += ["" if graph == self.subject.graph else f"{error:.1f} dB", seconds, memory]
        drawn = self.subject.drawn(graph)
        if drawn is not None and self.drawn is not None and graph != self.subject.graph:
            psnr = drawn.latent_psnr(self.drawn)
            apart = mean_estimate(drawn.scores - self.drawn.scores)
            cells += [f"{psnr.mean():.2f} dB", apart.to(4)]
        self.table.add_row(*cells)
        self.console.log(" | ".join(cells))

    def taken(self, graph: Path) -> set[str]:
        """Return the layers of the subject that are quantized in a graph made from it."""
        nodes = onnx.load(graph, load_external_data=False).graph.node
        unpacked = {o for n in nodes if n.op_type == "DequantizeLinear" for o in n.output}
        for node in nodes:
            if node.op_type == "Reshape" and node.input[0] in unpacked:
                unpacked.update(node.output)
        quantized = {n.name for n in nodes if len(n.input) > 1 and n.input[1] in unpacked}
        quantized |= {n.name.removesuffix("_Q4") for n in nodes if n.op_type == "MatMulNBits"}
        return quantized & self.layers.keys()

    def ours(self, recipe: str, calibrated: bool = True, only: set[str] | None = None) -> None:
        """Quantize with a recipe of sdpack, some layers or all."""
        out = self._scratch("sdpack")
        words: list[str | Path] = ["--precision", recipe, "--out", out]
        if calibrated:
            words += ["--calibration", self.subject.batches]
        if only is not None:
            left_out = sorted(self.layers.keys() - only)
            words += [word for name in left_out for word in ("--keep", name)]
        name = recipe if calibrated else f"{recipe} to nearest"
        shown = name if only is None else f"{name}, those layers"
        self._made("sdpack", shown, out, self._sdpack(*words))

    def calibrate(self) -> None:
        """Do the work that all recipes share; the first recipe includes its time."""
        out = self._scratch("sdpack")
        words = ("--precision", "fp16", "--runtime", "onnxruntime-cuda", "--out", out)
        command = self._sdpack(*words, "--calibration", self.subject.batches)
        self._made("sdpack", "calibration, and fp16", out, command)

    def _sdpack(self, *words: str | Path) -> list[str | Path]:
        return [sys.executable, "-m", "sdpack", "-q", "quantize", self.subject.graph, *words]

    def other(self, tool: str, recipe: str) -> set[str]:
        """Quantize with a recipe of another tool, and return the layers it quantized."""
        out = self._scratch(tool)
        # Some write over their input.
        for file in files_of(self.subject.graph):
            shutil.copy(file, out.parent / file.name)
        python = Path(sys.executable)
        if tool in ENVIRONMENTS:
            python = interpreter(tool, ENVIRONMENTS[tool])
        script = RIVALS / f"with_{tool}.py"
        command: list[str | Path] = [
            python,
            script,
            recipe,
            out.parent / MODEL_FILE,
            self.subject.batches,
            out,
        ]
        self._made(tool, recipe, out, command)
        return self.taken(out) if out.exists() else set()

    def _made(self, tool: str, recipe: str, out: Path, command: Sequence[str | Path]) -> None:
        environment = {CACHE_VARIABLE: str(self.subject.folder / "cache")}
        # ModelOpt compiles when it is first used, and takes a folder of packages for its own.
        taken = take(command, LIMIT_S, environment, out.parent)
        memory = f"{taken.private_bytes / 2**30:.2f} GiB"
        if taken.failed is None:
            self.row(tool, recipe, out, f"{taken.seconds:.0f}", memory)
        else:
            failure = f"failed: {taken.failed[:60]}"
            self.table.add_row(tool, recipe, "", "", failure, f"{taken.seconds:.0f}", memory)
            self.console.log(f"{tool} {recipe} {failure}")

    def _scratch(self, tool: str) -> Path:
        """Return a file in a new folder, and remove the previous folder."""
        folder = self.subject.folder / tool
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder / "made.onnx"


def compare(comparison: PrecisionComparison, recipes: Sequence[str], tools: Sequence[str]) -> None:
    """Measure every row of one table."""
    small = comparison.subject.evaluation is not None
    if recipes:
        comparison.calibrate()
        for recipe in recipes:
            comparison.ours(recipe)
        comparison.ours("w4", calibrated=False)
    compared: list[set[str]] = []
    for tool, recipe in OTHERS:
        if tool not in tools:
            continue
        took = comparison.other(tool, recipe)
        if small and recipes and "int4" in recipe and took and took not in compared:
            compared.append(took)
            comparison.ours("w4", only=took)
    comparison.console.print(comparison.table)


@click.command()
@click.option(
    "--full/--zoo", default=False, help="Use a UNet of 860 M parameters, or the zoo's (default)."
)
@click.option(
    "--pictures",
    default=64,
    show_default=True,
    help="Images of each recipe for the zoo's denoiser.",
)
@click.option("--recipes", help="Recipes of sdpack; default: some of each kind.")
@click.option(
    "--tools", default=",".join(TOOLS), show_default=True, help="Tools to compare with sdpack."
)
def main(full: bool, pictures: int, recipes: str | None, tools: str) -> None:
    """Print one table."""
    own = (FULL if full else OURS) if recipes is None else _listed(recipes)
    console = Console(width=180)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if full:
            subject = full_size(folder)
            compare(PrecisionComparison(subject, console), own, _listed(tools))
        else:
            with zoo(folder, pictures) as subject:
                compare(PrecisionComparison(subject, console), own, _listed(tools))
    tools = ", ".join(f"{name} {packages[0]}" for name, packages in ENVIRONMENTS.items())
    console.print(
        f"{machine_and_versions('sdpack', 'onnxruntime')}; of the other tools: {tools}, {TORCH}"
    )


def _listed(words: str) -> list[str]:
    return [word for word in words.split(",") if word]


if __name__ == "__main__":
    main()
