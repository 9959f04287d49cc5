"""The decoder for one frame compared with diffusers' decoder for videos."""

from __future__ import annotations

import copy

import torch
from sdpack.export.frame_decoder import FrameDecoder, read_numbers

from tests.e2e.language_families import video_decoder


def test_one_frame_is_decoded_as_a_video_of_one_frame_is() -> None:
    model = video_decoder().eval()
    latents = torch.randn(2, 4, 5, 3)
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1)
        for values in (model.config.latents_mean, model.config.latents_std)
    )
    with torch.no_grad():
        wanted = model.decode((latents * std + mean).unsqueeze(2), return_dict=False)[0][:, :, 0]
        made = FrameDecoder(copy.deepcopy(model))(latents)
    assert made.shape == wanted.shape == (2, 3, 40, 24)
    assert wanted.std() > 0.01
    assert (made - wanted).abs().max() < 1e-5


def test_the_numbers_that_are_read_are_those_of_the_decoder() -> None:
    model = video_decoder()
    whole = {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if not name.startswith(("encoder.", "quant_conv."))
    }
    counted = sum(read_numbers(name, shape) for name, shape in whole.items())
    decoder = FrameDecoder(model)
    for level in decoder.decoder.up_blocks:
        for resample in level.upsamplers or ():
            if hasattr(resample, "time_conv"):
                del resample.time_conv
    assert counted == sum(parameter.numel() for parameter in decoder.parameters())
