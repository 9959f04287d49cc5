"""Attention fused and sliced, on graphs of the real classes and on small ones beside them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from sdpack.domain.precision import Precision, Runtime
from sdpack.export.graph import OPSET
from sdpack.memory.liveness import liveness
from sdpack.quantization.half import to_half
from sdpack.quantization.layers import layers
from sdpack.quantization.rounded_weights import rounder
from sdpack.quantization.schemes import ABILITIES, UNIFORM
from sdpack.quantization.variant import (
    LayerQuantization,
    make_variant,
    scale_type,
    uniform_schemes,
)
from sdpack.rewrite.attention import unscaled, written_out
from sdpack.rewrite.fuse import FUSED, fuse_attention
from sdpack.rewrite.onnx_file import MODEL_FILE, read, write
from sdpack.rewrite.slice import slice_attention
from torch import Tensor, nn

from tests.sdpack.graphs import saved
from tests.sdpack.rewrite.attention_graphs import (
    HEADS,
    UNDERSTOOD,
    Arrays,
    close,
    counts,
    fused_attention_graph,
    run,
    small,
)
from tests.sdpack.rewrite.attention_models import CASES, EXPORTED_AT, Case


@contextmanager
def squeezes_checked() -> Iterator[None]:
    """PixArt squeezes an axis that is not 1, which PyTorch ignores and ONNX does not."""
    squeeze = Tensor.squeeze

    def checked(tensor: Tensor, *axes: int) -> Tensor:
        return squeeze(tensor, *axes) if not axes or tensor.shape[axes[0]] == 1 else tensor

    with mock.patch.object(Tensor, "squeeze", checked):
        yield


def export(case: Case, path: Path) -> None:
    torch.manual_seed(0)
    module = case.module().eval()
    for parameter in module.parameters():
        if parameter.ndim == 2:  # large enough for some words to be attended to more than others
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    inputs = case.inputs(EXPORTED_AT)
    shapes = {name: dict(case.dynamic.get(name, {})) for name in inputs}
    with torch.no_grad(), warnings.catch_warnings(), squeezes_checked():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (),
            kwargs=inputs,
            dynamo=True,
            input_names=list(inputs),
            output_names=["out"],
            dynamic_shapes=shapes if case.dynamic else None,
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    write(program.model, path)


@dataclass(frozen=True)
class Exported:
    """A class's graph, inputs of another size than it was exported at, and what it makes of
    them."""

    case: Case
    path: Path
    inputs: Arrays
    output: np.ndarray


@pytest.fixture(scope="module")
def all_exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    made: dict[str, Exported] = {}

    def exported(name: str) -> Exported:
        if name not in made:
            case, path = CASES[name], tmp_path_factory.mktemp("export") / MODEL_FILE
            export(case, path)
            torch.manual_seed(1)
            inputs = {key: value.numpy() for key, value in case.inputs(case.run_at).items()}
            made[name] = Exported(case, path, inputs, run(path, inputs))
        return made[name]

    return exported


@pytest.fixture(scope="module", params=list(CASES))
def exported(request: pytest.FixtureRequest, all_exported: Callable[[str], Exported]) -> Exported:
    return all_exported(request.param)


def test_every_attention_becomes_one_operator_that_says_the_same(
    exported: Exported, tmp_path: Path
) -> None:
    model = read(exported.path)
    assert fuse_attention(model) == exported.case.attentions
    assert counts(model)[FUSED] == exported.case.attentions
    assert counts(model)["Softmax"] == 0
    assert close(run(saved(model, tmp_path), exported.inputs), exported.output)


def test_every_attention_is_sliced_and_says_the_same(exported: Exported, tmp_path: Path) -> None:
    model = read(exported.path)
    assert slice_attention(model, 3) == exported.case.attentions
    assert counts(model)["Softmax"] == 3 * exported.case.attentions
    assert {node.domain for node in model.graph} == {""}
    assert close(run(saved(model, tmp_path), exported.inputs), exported.output)


def test_what_is_made_is_described_and_nothing_is_left_over(exported: Exported) -> None:
    for change in (fuse_attention, lambda model: slice_attention(model, 3)):
        model = read(exported.path)
        idle = {value for value in made(model) if not value.uses()}
        change(model)
        assert all(value.dtype is not None and value.shape is not None for value in made(model))
        assert len({value.name for value in made(model)}) == len(list(made(model)))
        assert all(
            value.uses() or value.is_graph_output() or value in idle for value in made(model)
        )
        assert all(value.uses() for value in model.graph.initializers.values())


@pytest.mark.parametrize("lost", [0.2, 1.0])
def test_where_sizes_are_not_known_nothing_breaks(
    exported: Exported, lost: float, tmp_path: Path
) -> None:
    for change in (fuse_attention, lambda model: slice_attention(model, 3)):
        model, rng = read(exported.path), np.random.default_rng(0)
        for value in made(model):
            kept = [size if rng.random() >= lost else None for size in value.shape or ()]
            value.shape = ir.Shape(kept)
        assert change(model) <= exported.case.attentions
        assert close(run(saved(model, tmp_path), exported.inputs), exported.output)


def made(model: ir.Model) -> Iterator[ir.Value]:
    return (value for node in model.graph for value in node.outputs)


@pytest.mark.parametrize(
    "name",
    ["UNet2DConditionModel", "CLIPTextModel", "T5EncoderModel", "BertModel", "AutoencoderKL"],
)
def test_projections_feed_the_operator_as_they_are(
    name: str, all_exported: Callable[[str], Exported]
) -> None:
    model = read(all_exported(name).path)
    fuse_attention(model)
    for node in fused_attention_graph(model):
        makers = [value.producer() for value in node.inputs[:3] if value is not None]
        assert [maker.op_type for maker in makers if maker] in (["Add"] * 3, ["MatMul"] * 3)
        assert [use.node.op_type for use in node.outputs[0].uses()] == ["MatMul"]


def test_picture_and_text_are_joined_before_they_are_split_into_heads(
    all_exported: Callable[[str], Exported],
) -> None:
    model = read(all_exported("SD3Transformer2DModel").path)
    fuse_attention(model)
    for node in fused_attention_graph(model):
        for value in node.inputs[:3]:
            assert value is not None
            maker = value.producer()
            assert maker is not None
            assert maker.op_type == "Concat"
            assert len(value.shape or ()) == 3


def test_layers_keep_their_names(all_exported: Callable[[str], Exported]) -> None:
    path = all_exported("UNet2DConditionModel").path
    model = read(path)
    fuse_attention(model)
    assert [layer.name for layer in layers(model)] == [layer.name for layer in layers(read(path))]


def test_stored_weights_stay_stored(
    all_exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    exported = all_exported("UNet2DConditionModel")
    path = exported.path

    def stored() -> ir.Model:
        schemes = uniform_schemes(layers(read(path)), UNIFORM[Precision.W8], frozenset())
        weights = rounder(None, scale_type(Precision.FP32))
        abilities = ABILITIES[Runtime.ONNXRUNTIME_CPU]
        quantization = LayerQuantization(schemes, weights)
        return make_variant(path, quantization, Precision.FP32, abilities)

    wanted = run(saved(stored(), tmp_path / "stored"), exported.inputs)
    model = stored()
    unpacked = counts(model)["DequantizeLinear"]
    assert unpacked > 0
    assert fuse_attention(model) == exported.case.attentions
    assert counts(model)["DequantizeLinear"] == unpacked
    assert close(run(saved(model, tmp_path / "fused"), exported.inputs), wanted)


@pytest.mark.parametrize("name", ["UNet2DConditionModel", "CLIPTextModel", "T5EncoderModel"])
@pytest.mark.parametrize("fp32_nodes", [(), ("Softmax",), ("Add", "Softmax"), ("MatMul",)])
def test_fp16_graphs_are_fused_and_agree(
    name: str, fp32_nodes: tuple[str, ...], all_exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    """Also those with the softmax, or every product, in fp32 between casts."""
    exported = all_exported(name)
    model = read(exported.path)
    wide = {str(node.name) for node in model.graph if node.op_type in fp32_nodes}
    to_half(model, wide)
    assert fuse_attention(model) == exported.case.attentions
    assert counts(model)["Softmax"] == 0
    half = ir.DataType.FLOAT if "MatMul" in fp32_nodes else ir.DataType.FLOAT16
    assert {node.outputs[0].dtype for node in fused_attention_graph(model)} == {half}
    path = saved(model, tmp_path)
    onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True)
    assert close(run(path, exported.inputs), exported.output, relative=0.02)


def test_slices_take_less_memory_at_once(all_exported: Callable[[str], Exported]) -> None:
    """4,096 queries and keys in four heads: 256 MiB of scores, as much again of their softmax."""
    path = all_exported("UNet2DConditionModel").path
    sizes = {"batch": 1, "height": 64, "width": 64, "sequence": 8}
    whole, sliced, fused = (read(path) for _ in range(3))
    slice_attention(sliced, 16)
    fuse_attention(fused)
    found = [liveness(model, sizes) for model in (whole, sliced, fused)]
    assert [plan.unknown for plan in found] == [()] * 3
    assert found[0].peak_bytes > 512 * 2**20
    assert found[1].peak_bytes < found[0].peak_bytes / 8
    assert found[2].peak_bytes < found[1].peak_bytes


# Small graphs, written down


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_an_attention_is_found_by_its_softmax(name: str, tmp_path: Path) -> None:
    model = read(small(*UNDERSTOOD[name], tmp_path))
    (found,) = written_out(model)
    ops = [node.op_type for node in found.nodes]
    assert (ops[0], ops.count("Softmax"), ops[-1]) == ("MatMul", 1, "MatMul")


@pytest.mark.parametrize(("factor", "scale"), [("half", 0.5), ("wide", None)])
def test_a_factor_is_a_scale_only_if_it_is_one_number(
    factor: str, scale: float | None, tmp_path: Path
) -> None:
    path = small(
        f"{HEADS}, float[1,1,1,4] wide", f"y = Mul({factor}, q)", "float[N,2,S,4] y", tmp_path
    )
    node = read(path).graph.node(-1)
    found = unscaled(node)
    assert (None if found is None else found[1]) == scale
