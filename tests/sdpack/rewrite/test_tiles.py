"""The zoo's decoders in tiles beside the same decoded at once, and graphs that cannot be cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image
from sdpack.domain.input_range import InputRange
from sdpack.domain.tiles import LATENTS, PICTURES, STEM_FILE, TAIL_FILE, Split
from sdpack.engines import tensorrt_builder
from sdpack.engines.onnxruntime import load
from sdpack.export.decoder import DecoderPart
from sdpack.export.graph import export
from sdpack.memory.liveness import passed_bytes
from sdpack.quantization.half import to_half
from sdpack.rewrite.onnx_file import read, write
from sdpack.rewrite.tiles import write_split
from sdpack.runtime.tiling import TiledDecoder

ZOO = Path(__file__).parents[3] / "zoo"
SIDE = 512


def folder_of(name: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Split]:
    kind = AutoencoderKL if name == "kl" else AutoencoderTiny
    part = DecoderPart(kind.from_pretrained(ZOO / "parts" / "decoder" / name).eval())
    folder = tmp_path_factory.mktemp(name)
    export(part, folder)
    split = write_split(folder / "model.onnx")
    assert split is not None
    return folder, split


def in_fp16(folder: Path, target: Path) -> Path:
    """The decoder of a folder in fp16, cut."""
    target.mkdir()
    model = read(folder / "model.onnx")
    to_half(model)
    write(model, target / "model.onnx")
    assert write_split(target / "model.onnx") is not None
    return target


@pytest.fixture(scope="module")
def kl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Split]:
    return folder_of("kl", tmp_path_factory)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Split]:
    return folder_of("tiny", tmp_path_factory)


@pytest.fixture(scope="module")
def latents() -> dict[str, np.ndarray]:
    """Of a collage of many pictures, whose corners have little in common, and of one enlarged."""
    sheet = Image.open(ZOO / "prompts" / "unseen_pairs.png").convert("RGB")
    collage = sheet.crop((0, 0, SIDE, SIDE))
    enlarged = sheet.crop((64, 64, 128, 128)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    model = AutoencoderKL.from_pretrained(ZOO / "parts" / "decoder" / "kl").eval()
    found = {}
    for name, picture in (("collage", collage), ("enlarged", enlarged)):
        pixels = torch.from_numpy(np.asarray(picture, np.float32) / 127.5 - 1)
        with torch.no_grad():
            coded = model.encode(pixels.permute(2, 0, 1)[None])
        found[name] = coded.latent_dist.mean.numpy()
    return found


def decoded(folder: Path, given: np.ndarray) -> np.ndarray:
    with load(folder / "model.onnx") as session:
        pictures = session.run({LATENTS: given})[PICTURES]
    return pictures.clip(-1, 1)


def tiled(
    folder: Path, split: Split, given: np.ndarray, tile: int, rounds: int | None = None
) -> np.ndarray:
    stem, tail = load(folder / STEM_FILE), load(folder / TAIL_FILE)
    with TiledDecoder(stem, tail, split, tile, rounds) as session:
        return np.clip(session.run({LATENTS: given})[PICTURES], -1, 1)


@pytest.mark.parametrize("name", ["collage", "enlarged"])
def test_a_normalizing_decoder_has_no_seam(
    kl: tuple[Path, Split], latents: dict[str, np.ndarray], name: str
) -> None:
    whole = decoded(kl[0], latents[name])
    own = 127.5 * np.abs(tiled(*kl, latents[name], 32, rounds=1) - whole).max()
    found = 127.5 * np.abs(tiled(*kl, latents[name], 32) - whole).max()
    assert own > 8, "tiles normalized each by itself are far off; else this would show nothing"
    assert found < 2


def test_a_decoder_without_norms_is_the_same_in_tiles(
    tiny: tuple[Path, Split], latents: dict[str, np.ndarray]
) -> None:
    given = latents["collage"]
    assert tiny[1].norms == 0
    assert np.abs(tiled(*tiny, given, 16) - decoded(tiny[0], given)).max() < 1e-5


def test_batches_and_other_shapes(kl: tuple[Path, Split], latents: dict[str, np.ndarray]) -> None:
    given = np.concatenate([latents[name][..., :40, :] for name in ("collage", "enlarged")])
    found = tiled(*kl, given, 32)
    assert found.shape == (2, 3, 320, 512)
    assert 127.5 * np.abs(found - decoded(kl[0], given)).max() < 2


def test_both_graphs_share_the_weights(kl: tuple[Path, Split]) -> None:
    folder = kl[0]
    weights = (folder / "model.onnx.data").stat().st_size
    assert {path.name for path in folder.glob("*.data")} == {"model.onnx.data"}
    for name in (STEM_FILE, TAIL_FILE):
        onnx.checker.check_model(str(folder / name), full_check=True)
        assert (folder / name).stat().st_size < max(200_000, weights // 4)


def test_a_decoder_in_fp16_keeps_its_statistics_wide(
    kl: tuple[Path, Split], latents: dict[str, np.ndarray], tmp_path: Path
) -> None:
    folder, split = in_fp16(kl[0], tmp_path / "half"), kl[1]
    given = latents["enlarged"]
    found = tiled(folder, split, given, 32)
    assert 127.5 * np.abs(found - decoded(folder, given)).max() < 2


def test_what_goes_in_and_out_of_a_tail_is_counted(kl: tuple[Path, Split]) -> None:
    folder, split = kl
    sizes = {"batch": 2, "rows": 72, "columns": 68}
    found = passed_bytes(ir.load(folder / TAIL_FILE), sizes)
    pixels = 72 * 68
    statistics = 2 * (2 * split.norms * 2 * split.groups)
    pictures = 2 * 3 * (8 // split.factor) ** 2 * pixels
    numbers = (2 * split.channels + 1) * pixels + statistics + 1 + pictures
    assert found == 4 * numbers


@pytest.mark.parametrize("half", [False, True])
def test_tensorrt_builds_both(kl: tuple[Path, Split], tmp_path: Path, half: bool) -> None:
    pytest.importorskip("tensorrt_rtx")
    folder, split = kl
    if half:
        folder = in_fp16(folder, tmp_path / "half")
    side = split.side(64, 32)
    (tmp_path / "stem").mkdir()
    (tmp_path / "tail").mkdir()
    sizes = {
        "features": (1, split.channels, side, side),
        "core": (1, 1, side, side),
        "given": (1, split.norms, 2, split.groups),
    }
    ranges = {name: InputRange(size, size, size) for name, size in sizes.items()}
    whole = {LATENTS: InputRange(*[(1, 16, 64, 64)] * 3)}
    build = tensorrt_builder.build
    stem = build("tensorrt_rtx", folder / STEM_FILE, tmp_path / "stem", whole, "SM86")
    tail = build("tensorrt_rtx", folder / TAIL_FILE, tmp_path / "tail", ranges, "SM86")
    (tmp_path / "whole").mkdir()
    both = build("tensorrt_rtx", folder / "model.onnx", tmp_path / "whole", whole, "SM86")
    assert max(stem.activation_bytes, tail.activation_bytes) < both.activation_bytes


def graph(*nodes: onnx.NodeProto, extra: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    value = onnx.helper.make_tensor_value_info
    latents = value(LATENTS, onnx.TensorProto.FLOAT, ["batch", 4, "height", "width"])
    pictures = value(PICTURES, onnx.TensorProto.FLOAT, ["batch", 4, "rows", "columns"])
    scales = {"twice": np.array([1, 1, 2, 2], np.float32)} | (extra or {})
    made = onnx.helper.make_graph(
        list(nodes),
        "decoder",
        [latents],
        [pictures],
        [onnx.numpy_helper.from_array(values, name) for name, values in scales.items()],
    )
    return onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 21)])


def enlarge(source: str, made: str, mode: str = "nearest") -> onnx.NodeProto:
    how = {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return onnx.helper.make_node("Resize", [source, "", "twice"], [made], mode=mode, **how)


def node(op_type: str, *inputs: str, made: str, **attributes: Any) -> onnx.NodeProto:
    return onnx.helper.make_node(op_type, list(inputs), [made], **attributes)


UNCUTTABLE = {
    "nothing before the first enlargement": graph(enlarge(LATENTS, "a"), enlarge("a", PICTURES)),
    "one enlargement": graph(enlarge(LATENTS, PICTURES)),
    "an enlargement that blends": graph(
        node("Relu", LATENTS, made="z"),
        enlarge("z", "a"),
        enlarge("a", "b", "linear"),
        node("Relu", "b", made=PICTURES),
    ),
    "attention in the tail": graph(
        node("Relu", LATENTS, made="z"),
        enlarge("z", "a"),
        enlarge("a", "b"),
        node("Softmax", "b", made=PICTURES, axis=-1),
    ),
    "a shortcut around the cut": graph(
        node("Relu", LATENTS, made="a"),
        enlarge("a", "b"),
        enlarge("b", "c"),
        node("GlobalAveragePool", LATENTS, made="level"),
        node("Add", "c", "level", made=PICTURES),
    ),
    "a convolution with a stride": graph(
        node("Relu", LATENTS, made="z"),
        enlarge("z", "a"),
        enlarge("a", "b"),
        node("Conv", "b", "kernel", made=PICTURES, strides=[2, 2], pads=[1, 1, 1, 1]),
        extra={"kernel": np.ones((4, 4, 3, 3), np.float32)},
    ),
}


@pytest.mark.parametrize("name", UNCUTTABLE)
def test_a_decoder_that_cannot_be_cut_is_left_alone(name: str, tmp_path: Path) -> None:
    onnx.save(UNCUTTABLE[name], tmp_path / "model.onnx")
    assert write_split(tmp_path / "model.onnx") is None
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx"}


def test_the_halo_is_as_wide_as_convolutions_reach(tmp_path: Path) -> None:
    kernel = np.ones((4, 4, 3, 3), np.float32) / 9
    around = {"pads": [4, 4, 4, 4], "dilations": [4, 4]}
    model = graph(
        node("Relu", LATENTS, made="z"),
        enlarge("z", "a"),
        enlarge("a", "b"),
        node("Conv", "b", "kernel", made="c", pads=[1, 1, 1, 1]),
        node("Conv", "c", "kernel", made=PICTURES, **around),
        extra={"kernel": kernel},
    )
    onnx.save(model, tmp_path / "model.onnx")
    split = write_split(tmp_path / "model.onnx")
    assert split == Split(channels=4, factor=1, halo=2, norms=0, groups=0)
    # 5 pixels, of which a feature has 4 a side
