from __future__ import annotations

from pathlib import Path

import pytest
from sdpack.errors import SourceError
from sdpack.export.single_file.content import OriginalFile, Shapes
from sdpack.export.single_file.recognition import (
    check_whole,
    count_averages,
    guess_base,
    read_marks,
)

BEGIN = "model.diffusion_model."
FIRST = f"{BEGIN}input_blocks.0.0.weight"
STATES = f"{BEGIN}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"


def of(shapes: Shapes) -> OriginalFile:
    file = OriginalFile(Path("mine.safetensors"))
    file.__dict__["shapes"] = shapes
    return file


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"lora_unet_a.lora_down.weight": (4, 8)}, "is a LoRA, not a model"),
        ({"emb_params": (2, 768)}, "is a textual inversion.*--embedding"),
        ({"decoder.conv_in.weight": (512, 4, 3, 3)}, "is a VAE, not a model; give it with --vae"),
        ({"first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3)}, "is a VAE"),
        ({"down_blocks.0.resnets.0.conv1.weight": (3,)}, "one part of a diffusers pipeline"),
        ({"transformer_blocks.0.attn.to_q.weight": (3,)}, "one part of a diffusers pipeline"),
        ({"something": (1,)}, "holds no denoiser that diffusers converts"),
        ({FIRST: (320, 9, 3, 3)}, "for inpainting, which takes a mask"),
        ({FIRST: (320, 8, 3, 3)}, "instruct-pix2pix or a latent upscaler"),
        ({FIRST: (320, 5, 3, 3)}, "depth map"),
        ({FIRST: (320, 4, 3, 3), f"{BEGIN}a.scale_weight": (1,)}, "quantized with scales"),
    ],
)
def test_what_is_not_a_text_to_image_model_is_refused_in_words(shapes: Shapes, words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        check_whole(of(shapes))
    assert "\n" not in str(caught.value)


def test_a_denoiser_of_usual_channels_is_accepted() -> None:
    check_whole(of({FIRST: (320, 4, 3, 3)}))


@pytest.mark.parametrize(
    ("width", "base"), [(768, "sd15"), (1024, "sd21"), (2048, "sdxl"), (16, None)]
)
def test_a_unet_without_text_encoders_is_told_by_the_width_of_its_states(
    width: int, base: str | None
) -> None:
    assert guess_base(of({FIRST: (320, 4, 3, 3), STATES: (640, width)})) == base


def test_a_refiner_and_other_flux_models_are_refused() -> None:
    with pytest.raises(SourceError, match="is a refiner"):
        guess_base(of({FIRST: (384, 4, 3, 3), STATES: (768, 1280)}))
    flux = {
        f"{BEGIN}double_blocks.0.img_attn.norm.key_norm.scale": (128,),
        f"{BEGIN}guidance_in.in_layer.bias": (3072,),
    }
    for channels, words in ((384, "Flux Fill"), (128, "Flux Depth or Canny")):
        with pytest.raises(SourceError, match=words):
            guess_base(of({**flux, f"{BEGIN}img_in.weight": (3072, channels)}))
    assert guess_base(of({**flux, f"{BEGIN}img_in.weight": (3072, 64)})) == "flux-dev"


def test_marks_and_averages_are_read_from_names() -> None:
    marks = read_marks({"v_pred": (0,)})
    assert (marks.is_v, marks.is_zero_snr) == (True, False)
    assert read_marks({"ztsnr": (0,)}).is_zero_snr
    assert count_averages({"model_ema.a": (1,), "model.a": (1,)}) == 1
