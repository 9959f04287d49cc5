"""Attention fused and sliced, on graphs of the real classes and on small ones beside them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from sdpack.domain.precision import Precision, Runtime
from sdpack.engines.onnxruntime import load
from sdpack.export.graph import OPSET
from sdpack.memory.liveness import liveness
from sdpack.quantization.half import to_half
from sdpack.quantization.layers import layers
from sdpack.quantization.rounded_weights import rounder
from sdpack.quantization.schemes import ABILITIES, UNIFORM
from sdpack.quantization.variant import make_variant, scale_type, uniform_schemes
from sdpack.rewrite.fuse import FUSED, fuse_attention
from sdpack.rewrite.onnx_file import MODEL_FILE, read, write
from sdpack.rewrite.slice import slice_attention
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from tests.sdpack.graphs import linear, saved

Arrays = dict[str, np.ndarray]
WORDS = 12  # in a text of CLIP
PICTURE = {0: "batch", 2: "height", 3: "width"}
TEXT = {0: "batch", 1: "sequence"}


class Told(nn.Module):
    """A model called with fixed arguments besides its inputs; one tensor comes out."""

    def __init__(self, model: nn.Module, pick: Callable[[Any], Tensor], **fixed: Any) -> None:
        super().__init__()
        self.model: Any = model
        self.pick, self.fixed = pick, fixed

    def run(self, **inputs: Tensor) -> Tensor:
        return self.pick(self.model(**inputs, **self.fixed))


class OfIds(Told):
    def forward(self, input_ids: Tensor) -> Tensor:
        return self.run(input_ids=input_ids)


class OfMaskedIds(Told):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.run(input_ids=input_ids, attention_mask=attention_mask)


class OfLatents(Told):
    def forward(self, latent_sample: Tensor) -> Tensor:
        picture: Tensor = self.model.decode(latent_sample).sample
        return picture


class OfNoise(Told):
    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        given = {"timestep": timestep, "encoder_hidden_states": encoder_hidden_states}
        return self.run(sample=sample, **given)


class OfPooledText(Told):
    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
    ) -> Tensor:
        return self.run(
            hidden_states=hidden_states,
            timestep=timestep,
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_projections,
        )


class OfPlacedTokens(Told):
    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        txt_ids: Tensor,
        img_ids: Tensor,
    ) -> Tensor:
        return self.run(
            hidden_states=hidden_states,
            timestep=timestep,
            encoder_hidden_states=encoder_hidden_states,
            pooled_projections=pooled_projections,
            txt_ids=txt_ids,
            img_ids=img_ids,
        )


class OfMaskedText(Told):
    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
    ) -> Tensor:
        return self.run(
            hidden_states=hidden_states,
            timestep=timestep,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
        )


def first(output: Any) -> Tensor:
    tensor: Tensor = output[0]
    return tensor


CLIP = CLIPTextConfig(
    vocab_size=64,
    hidden_size=16,
    intermediate_size=32,
    projection_dim=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=WORDS,
    bos_token_id=0,
    eos_token_id=1,
)


def bert() -> BertModel:
    config = BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    return BertModel(config, add_pooling_layer=False)


def t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    )


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )


def sd3() -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=16,
        out_channels=4,
        pos_embed_max_size=16,
    )


def flux() -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
    )


def pixart() -> PixArtTransformer2DModel:
    return PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        out_channels=4,
        num_layers=1,
        cross_attention_dim=16,
        sample_size=8,
        caption_channels=16,
        use_additional_conditions=False,
    )


def decoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        latent_channels=4,
    )


@dataclass(frozen=True)
class Shape:
    batch: int
    height: int
    width: int
    words: int

    @property
    def text(self) -> tuple[int, int, int]:
        return self.batch, self.words, 16


EXPORTED_AT, RUN_AT = Shape(2, 8, 12, 9), Shape(3, 12, 8, 7)


def ids(shape: Shape, words: int) -> Tensor:
    return torch.randint(2, 60, (shape.batch, words))


def padded(shape: Shape) -> Tensor:
    """Every text two words shorter than the one before it."""
    lengths = shape.words - 2 * torch.arange(shape.batch).unsqueeze(1)
    return (torch.arange(shape.words).unsqueeze(0) < lengths).long()


def of_text(shape: Shape) -> dict[str, Tensor]:
    found = ids(shape, WORDS)
    found[:, -1] = CLIP.eos_token_id  # where CLIP pools
    return {"input_ids": found}


def of_padded_text(shape: Shape) -> dict[str, Tensor]:
    return {"input_ids": ids(shape, shape.words), "attention_mask": padded(shape)}


def of_latents(shape: Shape) -> dict[str, Tensor]:
    return {"latent_sample": torch.randn(shape.batch, 4, shape.height, shape.width)}


def of_noise(shape: Shape, name: str = "sample") -> dict[str, Tensor]:
    return {
        name: torch.randn(shape.batch, 4, shape.height, shape.width),
        "timestep": torch.full((shape.batch,), 500.0),
        "encoder_hidden_states": torch.randn(shape.text),
    }


def of_pooled_text(shape: Shape) -> dict[str, Tensor]:
    pooled = {"pooled_projections": torch.randn(shape.batch, 16)}
    return {**of_noise(shape, "hidden_states"), **pooled}


def of_placed_tokens(shape: Shape) -> dict[str, Tensor]:
    tokens = shape.height * shape.width
    places = {"txt_ids": torch.zeros(shape.words, 3), "img_ids": 5 * torch.randn(tokens, 3)}
    noise = {"hidden_states": torch.randn(shape.batch, tokens, 4)}
    return {**of_pooled_text(shape), **noise, **places}


def of_masked_text(shape: Shape) -> dict[str, Tensor]:
    return {**of_noise(shape, "hidden_states"), "encoder_attention_mask": padded(shape)}


IDS, ROWS = {"input_ids": {0: "batch"}}, {0: "batch"}
MASKED_IDS = {"input_ids": TEXT, "attention_mask": TEXT}
NOISE = {"timestep": ROWS, "encoder_hidden_states": TEXT, "pooled_projections": ROWS}


@dataclass(frozen=True)
class Case:
    """A class, how it is called, the axes that vary (none: exported for one size), and how many
    attentions it has."""

    module: Callable[[], nn.Module]
    inputs: Callable[[Shape], dict[str, Tensor]]
    dynamic: Mapping[str, Mapping[int, str]]
    attentions: int

    @property
    def run_at(self) -> Shape:
        return RUN_AT if self.dynamic else EXPORTED_AT


CASES = {
    "UNet2DConditionModel": Case(
        lambda: OfNoise(unet(), first, return_dict=False),
        of_noise,
        {"sample": PICTURE, "timestep": ROWS, "encoder_hidden_states": TEXT},
        attentions=4,
    ),
    "CLIPTextModel": Case(lambda: OfIds(CLIPTextModel(CLIP), first), of_text, IDS, attentions=2),
    "CLIPTextModelWithProjection": Case(
        lambda: OfIds(CLIPTextModelWithProjection(CLIP), lambda output: output.text_embeds),
        of_text,
        IDS,
        attentions=2,
    ),
    "T5EncoderModel": Case(
        lambda: OfMaskedIds(t5(), first), of_padded_text, MASKED_IDS, attentions=2
    ),
    "BertModel": Case(lambda: OfMaskedIds(bert(), first), of_padded_text, MASKED_IDS, attentions=2),
    "SD3Transformer2DModel": Case(
        lambda: OfPooledText(sd3(), first, return_dict=False),
        of_pooled_text,
        {"hidden_states": PICTURE, **NOISE},
        attentions=2,
    ),
    "FluxTransformer2DModel": Case(
        lambda: OfPlacedTokens(flux(), first, return_dict=False),
        of_placed_tokens,
        {
            "hidden_states": {0: "batch", 1: "tokens"},
            "txt_ids": {0: "sequence"},
            "img_ids": {0: "tokens"},
            **NOISE,
        },
        attentions=2,
    ),
    "PixArtTransformer2DModel": Case(
        lambda: OfMaskedText(
            pixart(),
            first,
            return_dict=False,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ),
        of_masked_text,
        {},
        attentions=2,
    ),
    "AutoencoderKL": Case(
        lambda: OfLatents(decoder(), first), of_latents, {"latent_sample": PICTURE}, attentions=1
    ),
}


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


def run(path: Path, inputs: Arrays) -> np.ndarray:
    """The first output."""
    with load(path, threads=1) as session:
        return next(iter(session.run(inputs).values()))


def counts(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def close(seen: np.ndarray, wanted: np.ndarray, relative: float = 1e-5) -> bool:
    assert seen.dtype == wanted.dtype
    return seen.shape == wanted.shape and bool(
        np.abs(seen - wanted).max() <= relative * np.abs(wanted).max()
    )


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


def fused_attention_graph(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == FUSED]


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
        return make_variant(path, schemes, Precision.FP32, abilities, weights)

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

HEADS = "float[N,2,S,4] q, float[N,2,T,4] k, float[N,2,T,4] v"
NO_HEADS = "float[N,S,4] q, float[N,T,4] k, float[N,T,4] v"
SPLIT = "float[N,S,2,4] q, float[N,T,2,4] k, float[N,T,2,4] v"
OUT, NO_HEADS_OUT, MERGED_OUT = "float[N,2,S,4] y", "float[N,S,4] y", "float[N,S,8] y"
CONSTANTS = """
    half = Constant<value_float=0.5>()
    zero = Constant<value_float=0.0>()
    lowest = Constant<value=float {-3.4028234e38}>()
    infinite = Constant<value=float {-inf}>()
"""
PRODUCT = "kt = Transpose<perm=[0,1,3,2]>(k) a = MatMul(q, kt) "
NO_HEADS_PRODUCT = "kt = Transpose<perm=[0,2,1]>(k) a = MatMul(q, kt) "
SCALED = PRODUCT + "s = Mul(half, a) "
END = "p = Softmax<axis=-1>(m) y = MatMul(p, v)"
GUARDED_END = "p = Softmax<axis=-1>(m) nan = IsNaN(p) g = Where(nan, zero, p) y = MatMul(g, v) "
UNDERSTOOD = {
    "scores in parts": (HEADS, PRODUCT + "m = Div(a, half) " + END, OUT),
    "no scale": (HEADS, PRODUCT + "p = Softmax<axis=3>(a) y = MatMul(p, v)", OUT),
    "scaled queries and keys": (
        HEADS,
        "t = Mul(k, half) kt = Transpose<perm=[0,1,3,2]>(t) r = Div(q, half) m = MatMul(r, kt) "
        + END,
        OUT,
    ),
    "split and merged heads": (
        SPLIT,
        "qt = Transpose<perm=[0,2,1,3]>(q) kt = Transpose<perm=[0,2,3,1]>(k) "
        "vt = Transpose<perm=[0,2,1,3]>(v) m = MatMul(qt, kt) p = Softmax<axis=-1>(m) "
        "o = MatMul(p, vt) t = Transpose<perm=[0,2,1,3]>(o) "
        "shape = Constant<value_ints=[0,0,-1]>() y = Reshape(t, shape)",
        MERGED_OUT,
    ),
    "heads merged by a size that is copied from the last axes": (
        HEADS,
        PRODUCT + "p = Softmax<axis=-1>(a) o = MatMul(p, v) t = Transpose<perm=[0,2,1,3]>(o) "
        "shape = Constant<value_ints=[-1,1,0,0]>() y = Reshape(t, shape)",
        "float[M,1,2,4] y",
    ),
    "an output that is used twice": (
        HEADS,
        PRODUCT + "p = Softmax<axis=-1>(a) o = MatMul(p, v) "
        "t = Transpose<perm=[0,2,1,3]>(o) u = Relu(t) r = Transpose<perm=[0,2,1,3]>(u) "
        "y = Add(r, o)",
        OUT,
    ),
    "a mask of queries and keys": (f"{HEADS}, float[S,T] b", SCALED + "m = Add(s, b) " + END, OUT),
    "a mask of heads": (f"{HEADS}, float[2,S,T] b", SCALED + "m = Add(b, s) " + END, OUT),
    "a mask of keys": (f"{HEADS}, float[N,1,1,T] b", SCALED + "m = Add(s, b) " + END, OUT),
    "two masks": (
        f"{HEADS}, float[1,2,S,T] b, float[N,1,1,T] c",
        SCALED + "n = Add(s, b) m = Add(n, c) " + END,
        OUT,
    ),
    "a mask of the lowest number, guarded": (
        f"{HEADS}, bool[N,1,S,T] b",
        SCALED + "c = Where(b, zero, lowest) m = Add(s, c) " + GUARDED_END,
        OUT,
    ),
    "a mask of infinity, guarded": (
        f"{HEADS}, bool[N,1,S,T] b",
        SCALED + "c = Where(b, zero, infinite) m = Add(s, c) " + GUARDED_END,
        OUT,
    ),
    "no heads": (NO_HEADS, NO_HEADS_PRODUCT + "m = Mul(a, half) " + END, NO_HEADS_OUT),
    "no heads and a mask": (
        f"{NO_HEADS}, float[N,S,T] b",
        NO_HEADS_PRODUCT + "m = Add(a, b) " + END,
        NO_HEADS_OUT,
    ),
    "no heads and a mask of nothing, as baddbmm has it": (
        NO_HEADS,
        NO_HEADS_PRODUCT
        + "s = Mul(a, half) rows = Shape<end=2>(q) columns = Shape<start=1, end=2>(k) "
        + "sizes = Concat<axis=0>(rows, columns) e = Expand(zero, sizes) n = Mul(e, zero) "
        + "m = Add(s, n) "
        + END,
        NO_HEADS_OUT,
    ),
}
NOT_UNDERSTOOD = {
    "scores that are an output": (
        HEADS,
        SCALED + "p = Softmax<axis=-1>(s) y = MatMul(p, v)",
        f"{OUT}, float[N,2,S,T] s",
    ),
    "weights that are used twice": (
        HEADS,
        SCALED + "p = Softmax<axis=-1>(s) o = MatMul(p, v) r = MatMul(p, v) y = Add(o, r)",
        OUT,
    ),
    "scores that are bent": (HEADS, SCALED + "m = Tanh(s) " + END, OUT),
    "a mask that is scaled": (
        f"{HEADS}, float[S,T] b",
        PRODUCT + "n = Add(a, b) m = Mul(n, half) " + END,
        OUT,
    ),
    "a softmax over queries": (HEADS, PRODUCT + "p = Softmax<axis=2>(a) y = MatMul(p, v)", OUT),
    "one head of keys for all": (
        "float[N,2,S,4] q, float[N,1,T,4] k, float[N,2,T,4] v",
        PRODUCT + "m = Mul(half, a) " + END,
        OUT,
    ),
    "values of one batch for all": (
        "float[N,2,S,4] q, float[N,2,T,4] k, float[1,2,T,4] v",
        PRODUCT + "m = Mul(half, a) " + END,
        OUT,
    ),
    "a mask that makes a batch of one a batch of many": (
        "float[1,2,S,4] q, float[1,2,T,4] k, float[1,2,T,4] v, float[N,1,S,T] b",
        SCALED + "m = Add(s, b) " + END,
        OUT,
    ),
    "no heads, and a mask of infinity, guarded": (
        f"{NO_HEADS}, bool[N,S,T] b",
        NO_HEADS_PRODUCT + "c = Where(b, zero, infinite) m = Add(a, c) " + GUARDED_END,
        NO_HEADS_OUT,
    ),
}


def small(inputs: str, body: str, output: str, folder: Path) -> Path:
    head = f'<ir_version: 10, opset_import: ["" : {OPSET}]> small'
    text = f"{head} ({inputs}) => ({output}) {{ {CONSTANTS} {body} }}"
    return saved(ir.from_proto(onnx.parser.parse_model(text)), folder)


def drawn(path: Path, **sizes: int) -> Arrays:
    """Inputs for a graph; where a mask says yes or no, the first query attends to nothing."""
    rng, found = np.random.default_rng(0), Arrays()
    for value in read(path).graph.inputs:
        assert value.name is not None
        assert value.shape is not None
        shape = [size if isinstance(size, int) else sizes[str(size.value)] for size in value.shape]
        found[value.name] = 2 * rng.standard_normal(shape, np.float32)
        if value.dtype is ir.DataType.BOOL:
            found[value.name] = found[value.name] < 0
            found[value.name][..., 0, :] = False
    return found


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_what_is_understood_is_fused_and_sliced(name: str, tmp_path: Path) -> None:
    path = small(*UNDERSTOOD[name], tmp_path)
    fused, sliced = read(path), read(path)
    assert fuse_attention(fused) == slice_attention(sliced, 3) == 1
    assert fuse_attention(fused) == 0
    after = [saved(model, tmp_path / word) for model, word in ((fused, "f"), (sliced, "s"))]
    for queries in (5, 2):  # the second less than there are slices
        inputs = drawn(path, N=3, S=queries, T=7)
        wanted = run(path, inputs)
        assert np.isfinite(wanted).all()
        assert all(close(run(other, inputs), wanted) for other in after)


def test_a_query_that_may_attend_to_nothing_gets_zeros(tmp_path: Path) -> None:
    path = small(*UNDERSTOOD["a mask of infinity, guarded"], tmp_path)
    model = read(path)
    fuse_attention(model)
    made = run(saved(model, tmp_path / "fused"), drawn(path, N=3, S=5, T=7))
    assert not made[:, :, 0].any()
    assert made[:, :, 1:].all()


def test_a_mask_that_adds_nothing_is_dropped(tmp_path: Path) -> None:
    """Only without a mask does ONNX Runtime's CPU kernel do without all scores."""
    name = "no heads and a mask of nothing, as baddbmm has it"
    model = read(small(*UNDERSTOOD[name], tmp_path))
    fuse_attention(model)
    (node,) = fused_attention_graph(model)
    assert len(node.inputs) == 3


def test_a_mask_is_repeated_for_all_queries_once(tmp_path: Path) -> None:
    again = "kt2 = Identity(kt) a2 = MatMul(y1, kt2) m2 = Add(a2, b) p2 = Softmax<axis=-1>(m2) "
    body = SCALED + "m = Add(s, b) p = Softmax<axis=-1>(m) y1 = MatMul(p, v) " + again
    model = read(small(f"{HEADS}, float[N,1,1,T] b", body + "y = MatMul(p2, v)", OUT, tmp_path))
    assert fuse_attention(model) == 2
    assert counts(model)["Expand"] == 1


@pytest.mark.parametrize("name", NOT_UNDERSTOOD)
def test_what_is_not_understood_is_left_alone(name: str, tmp_path: Path) -> None:
    path = small(*NOT_UNDERSTOOD[name], tmp_path)
    model = read(path)
    before = wired(model)
    assert fuse_attention(model) == 0
    assert wired(model) == before
    inputs = drawn(path, N=3, S=5, T=7)
    assert close(run(saved(model, tmp_path / "same"), inputs), run(path, inputs))


def wired(model: ir.Model) -> list[tuple[str, ...]]:
    """Every node and what it takes and makes, by name."""
    return [
        (node.op_type, *(str(value and value.name) for value in (*node.inputs, *node.outputs)))
        for node in model.graph
    ]


def test_heads_of_a_batch_that_is_not_known_to_be_the_same_are_left_alone(tmp_path: Path) -> None:
    inputs = HEADS.replace("float[N,2,T,4] k", "float[M,2,T,4] k")
    path = small(inputs, SCALED + "m = Add(s, zero) " + END, "float[L,2,S,4] y", tmp_path)
    model = read(path)
    assert fuse_attention(model) == 0
    wide = drawn(path, N=3, M=1, S=5, T=7)
    assert run(saved(model, tmp_path / "same"), wide).shape == (3, 2, 5, 4)


def test_a_graph_without_attention_is_left_alone() -> None:
    for change in (fuse_attention, lambda model: slice_attention(model, 4)):
        model = linear(np.ones((3, 2), np.float32))
        before = ir.to_proto(model).SerializeToString()
        assert change(model) == 0
        assert ir.to_proto(model).SerializeToString() == before


def test_a_slice_waits_for_the_one_before_it(tmp_path: Path) -> None:
    model = read(small(*UNDERSTOOD["a mask of queries and keys"], tmp_path))
    slice_attention(model, 3)
    (join,) = [node for node in model.graph if node.op_type == "Concat"]
    ends = [value.producer() for value in join.inputs if value is not None]
    for before, after in pairwise(ends):
        assert before in leading_to(after)
    order = {node: place for place, node in enumerate(model.graph)}
    places = [order[end] for end in ends if end is not None]
    assert places == sorted(places)


def leading_to(node: ir.Node | None) -> set[ir.Node]:
    found: set[ir.Node] = set()
    left = [node]
    while left:
        last = left.pop()
        for value in last.inputs if last is not None else ():
            maker = value.producer() if value is not None else None
            if maker is not None and maker not in found:
                found.add(maker)
                left.append(maker)
    return found


def test_as_many_slices_as_queries_where_they_are_few(tmp_path: Path) -> None:
    inputs = "float[N,2,5,4] q, float[N,2,T,4] k, float[N,2,T,4] v"
    path = small(inputs, SCALED + "m = Add(s, zero) " + END, "float[N,2,5,4] y", tmp_path)
    model = read(path)
    slice_attention(model, 8)
    assert counts(model)["Softmax"] == 5
    drawn_inputs = drawn(path, N=3, T=7)
    assert close(run(saved(model, tmp_path / "sliced"), drawn_inputs), run(path, drawn_inputs))
