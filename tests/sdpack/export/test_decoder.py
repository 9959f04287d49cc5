from __future__ import annotations

from typing import Any

import pytest
import torch
from sdpack.errors import ExportError
from sdpack.export.decoder import DecoderPart
from sdpack.export.graph import Shape

from tests.sdpack.export.test_latents import DECODERS, kl


def test_a_decoder_that_enlarges_otherwise_is_not_exported() -> None:
    model: Any = kl(3)
    model.register_to_config(block_out_channels=(4, 4, 4, 4))
    with pytest.raises(ExportError, match="turns 2x3 latents into 8x12 pixels"):
        DecoderPart(model)


@pytest.mark.parametrize("name", ["KL of 1", "KL of 4", "tiny of 3"])
def test_a_part_decodes_as_its_model_does(name: str) -> None:
    torch.manual_seed(0)
    model: Any = DECODERS[name]()
    part = DecoderPart(model)
    inputs = part.inputs(Shape(2, 3, 5))
    assert {key: tuple(value.shape) for key, value in inputs.items()} == {
        "latent_sample": (2, 4, 3, 5)
    }
    with torch.no_grad():
        wanted = model.decode(inputs["latent_sample"]).sample
        assert torch.equal(part.module(**inputs), wanted)
    assert part.dynamic.keys() == inputs.keys()
