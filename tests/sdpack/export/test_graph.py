"""Exports of tiny random models of the real classes, run in ONNX Runtime beside PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from sdpack.documents.conditioning import Conditioning
from sdpack.engines.onnxruntime import load
from sdpack.errors import ExportError
from sdpack.export import graph
from sdpack.export.bridge import BridgeModule
from sdpack.export.decoder import DecoderPart
from sdpack.export.denoiser import DenoiserPart
from sdpack.export.graph import ExportablePart, Shape, export, seeded_inputs
from sdpack.export.text_encoder import TextEncoderPart
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel


def clip() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=12,
            bos_token_id=0,
            eos_token_id=1,
        )
    )


def unet(**settings: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
        **settings,
    )


def kl() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )


def tiny() -> AutoencoderTiny:
    return AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)


PARTS: dict[str, Callable[[], ExportablePart]] = {
    "CLIP": lambda: TextEncoderPart(clip().eval(), None),
    "CLIP over a bridge": lambda: TextEncoderPart(clip().eval(), BridgeModule(16, 24).eval()),
    "UNet": lambda: DenoiserPart(unet().eval(), Conditioning()),
    "UNet of the zoo's kind": lambda: DenoiserPart(
        unet(
            resnet_time_scale_shift="scale_shift",
            addition_embed_type="text",
            addition_embed_type_num_heads=4,
        ).eval(),
        Conditioning(),
    ),
    "KL decoder": lambda: DecoderPart(kl().eval()),
    "tiny decoder": lambda: DecoderPart(tiny().eval()),
}


@pytest.fixture(scope="module", params=list(PARTS))
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ExportablePart, Path, graph.Exported]:
    torch.manual_seed(0)
    part = PARTS[request.param]()
    folder = tmp_path_factory.mktemp("export")
    return part, folder, export(part, folder)


def test_the_graph_says_what_the_module_says(
    exported: tuple[ExportablePart, Path, graph.Exported],
) -> None:
    part, folder, said = exported
    assert said.worst < 1e-4
    assert len(said.errors) == 2
    inputs = seeded_inputs(part, Shape(5, 8, 32))
    with torch.no_grad():
        wanted = part.module(**inputs).numpy()
    with load(folder / "model.onnx", threads=1) as session:
        seen = session.run({k: v.numpy() for k, v in inputs.items()})[part.outputs[0]]
    assert np.abs(seen - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_an_export_names_no_place_on_this_machine(
    exported: tuple[ExportablePart, Path, graph.Exported],
) -> None:
    _, folder, _ = exported
    text = (folder / "model.onnx").read_bytes()
    for trace in (b".py", b"/home", b"site-packages", str(Path.cwd()).encode()):
        assert trace not in text


def test_two_exports_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        torch.manual_seed(0)
        (tmp_path / name).mkdir()
        export(PARTS["CLIP over a bridge"](), tmp_path / name)
    for file in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_graph_that_disagrees_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    part = PARTS["tiny decoder"]()
    write = graph._write

    def sabotage(part: ExportablePart, path: Path) -> None:
        write(part, path)
        with torch.no_grad():
            for parameter in part.module.parameters():
                parameter.mul_(1.1)

    monkeypatch.setattr(graph, "_write", sabotage)
    with pytest.raises(ExportError, match="differs by"):
        export(part, tmp_path)


@pytest.mark.parametrize("errors", [(1e-9, math.nan), (math.nan, 1e-9), (math.nan,)])
def test_an_error_that_is_not_a_number_is_the_worst(errors: tuple[float, ...]) -> None:
    found = graph.Exported({str(number): error for number, error in enumerate(errors)})
    assert not found.worst < graph.OUTPUT_TOLERANCE


def test_a_module_that_cannot_be_exported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wild(nn.Module):
        def forward(self, latent_sample: torch.Tensor) -> torch.Tensor:
            return latent_sample * float(latent_sample.sum() > 0 and len(str(latent_sample)))

    part = DecoderPart(tiny().eval())
    monkeypatch.setattr(part, "module", Wild())
    with pytest.raises(ExportError, match="export failed"):
        export(part, tmp_path)


def test_a_part_made_for_its_export_is_freed_before_its_graph_is_run(tmp_path: Path) -> None:
    part = DecoderPart(tiny().eval())

    def held() -> int:
        return sum(weight.untyped_storage().size() for weight in part.module.parameters())

    before = held()
    assert before > 0
    export(part, tmp_path)
    assert held() == before
    said = graph.export_made(lambda: part, tmp_path)
    # What numpy has seen of a weight cannot be taken away: the exporter keeps some of that.
    assert held() < before / 2, "though this test still refers to it"
    assert said.worst < 1e-4
