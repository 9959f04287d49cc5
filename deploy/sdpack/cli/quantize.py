"""`sdpack quantize`: converts an ONNX file to another precision."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import click

from sdpack.api.making import quantize
from sdpack.cli.options import out_option
from sdpack.cli.output import json_option, layer_counts, print_json, print_lines, progress, timed
from sdpack.cli.values import PATH, TEXT, FilePath
from sdpack.domain.precision import Runtime
from sdpack.units import format_bytes


@click.command(
    "quantize",
    epilog="""\b
Examples:
  sdpack quantize unet.onnx --precision w4 --calibration batches/
  sdpack quantize unet.onnx --precision mixed@4.5 --calibration batches/ --out small.onnx
  sdpack quantize vae.onnx --precision fp16 --runtime tensorrt-rtx --calibration latents.npz
\b
Precisions: fp16, bf16; int8, fp8 (weights and their inputs); w8, w4, w4:64, w4:128 (weights,
int4 in blocks of 32 or as given); mixed@BITS (w8 or w4 layer by layer, BITS per weight on
average, chosen for the least output error).
""",
)
@click.argument("model", type=PATH)
@click.option("--precision", "words", type=TEXT, required=True, help="Target precision; see below.")
@click.option(
    "--calibration",
    multiple=True,
    type=FilePath(exists=True),
    metavar="FILE.npz|FOLDER",
    help="Real inputs: one batch per file, arrays named like the graph's inputs; repeatable.",
)
@click.option(
    "--runtime",
    type=click.Choice([runtime.value for runtime in Runtime]),
    default=Runtime.ONNXRUNTIME_CPU.value,
    show_default=True,
    help="Target runtime: decides graph form and compute type.",
)
@click.option(
    "--keep",
    multiple=True,
    type=TEXT,
    metavar="PATTERN",
    help="Names of layers to leave unquantized, with * and ? as in file names; repeatable.",
)
@out_option("ONNX file to write; default: beside MODEL, as MODEL.PRECISION.onnx.")
@json_option
@click.pass_context
@timed
def command(
    ctx: click.Context,
    model: Path,
    words: str,
    calibration: tuple[Path, ...],
    runtime: str,
    keep: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Quantize an ONNX file.

    With calibration inputs, rounding minimizes each layer's output error; without them, weights
    are rounded to nearest.
    """
    from sdpack.pack.single_graph.recipe import parse_recipe
    from sdpack.quantization.leftovers import listed_words

    recipe = parse_recipe(words)
    with progress(ctx) as say:
        result = quantize(
            model=model,
            precision=words,
            calibration=calibration,
            runtime=runtime,
            keep=keep,
            out=out,
            progress=say,
        )
    decibels = {name: _decibels(error) for name, error in result.errors.items()}
    if as_json:
        print_json(
            {
                "out": str(result.out),
                "precision": str(recipe),
                "runtime": runtime,
                "bytes_before": result.bytes_before,
                "bytes_after": result.bytes_after,
                "layers": dict(result.layers),
                "unquantized": [asdict(weight) for weight in result.unquantized],
                "fp32_nodes": list(result.fp32_nodes),
                "output_error_db": decibels,
                "calibrated": bool(calibration),
                "not_loaded": result.not_loaded or None,
            }
        )
        return
    before, after = result.bytes_before, result.bytes_after
    lines = [f"{result.out}: {format_bytes(after)}, was {format_bytes(before)}"]
    if result.layers:
        lines.append(f"layers by precision: {layer_counts(result.layers)}")
    if result.unquantized:
        numbers = sum(weight.numbers for weight in result.unquantized)
        words = "in fp32" if recipe.changes_arithmetic_alone else "not quantized"
        lines.append(listed_words(f"{words} ({numbers:,} numbers): ", result.unquantized))
    if result.fp32_nodes:
        shown = ", ".join(result.fp32_nodes[:3]) + (" ..." if len(result.fp32_nodes) > 3 else "")
        lines.append(f"{len(result.fp32_nodes)} nodes compute in fp32 for their range: {shown}")
    for name, level in decibels.items():
        error = "none" if level is None else f"{level:.1f} dB"
        lines.append(f"{name}: error on the calibration inputs {error}")
    if not calibration:
        lines.append(
            "no calibration inputs were given: weights are rounded to nearest; neither output "
            "error nor overflow in fp16 was measured"
        )
    if result.not_loaded:
        lines.append(f"the new graph was not loaded to try it: {result.not_loaded}")
    print_lines(lines)


def _decibels(error: float) -> float | None:
    """Return a relative error energy in decibels, or None for no error."""
    return 10 * math.log10(error) if error > 0 else None
