from __future__ import annotations

import pytest
from sdpack.documents.conditioning import Conditioning, Family, Input, NegativeSource

NONE, ZEROS, TEXT = NegativeSource.NONE, NegativeSource.ZEROS, NegativeSource.TEXT


@pytest.mark.parametrize(
    ("conditioning", "guidance_scale", "negative_prompt", "source"),
    [
        (Conditioning(), 7.5, "", TEXT),
        (Conditioning(), 7.5, "blurry", TEXT),
        (Conditioning(), 1.0, "blurry", NONE),
        (Conditioning(family=Family.SDXL, zero_empty=True), 5.0, "", ZEROS),
        (Conditioning(family=Family.SDXL, zero_empty=True), 5.0, "blurry", TEXT),
        (Conditioning(family=Family.SDXL, zero_empty=True), 1.0, "", NONE),
        (Conditioning(family=Family.FLUX), 3.5, "blurry", NONE),
        (Conditioning(inputs=(Input.TIMESTEP_COND,)), 8.0, "blurry", NONE),
    ],
)
def test_guidance_moves_away_from_what_diffusers_pipelines_take(
    conditioning: Conditioning, guidance_scale: float, negative_prompt: str, source: NegativeSource
) -> None:
    assert conditioning.negative(guidance_scale, negative_prompt) is source
