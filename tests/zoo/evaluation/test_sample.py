import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from zoo import parts
from zoo.errors import UnknownPromptError
from zoo.evaluation import sample
from zoo.evaluation.sample import ZooPipeline, starting_noise
from zoo.training import text_encoder as text

PROMPTS = ["noto, pizza", "twemoji, blue heart"]


@pytest.mark.parametrize("encoder", parts.SIZES)
@pytest.mark.parametrize("denoiser", parts.SIZES)
def test_every_pair_draws_pictures_that_differ_between_prompts(
    encoder: parts.Size, denoiser: parts.Size
) -> None:
    pipeline = ZooPipeline.of(encoder, denoiser)
    latents = pipeline.latents(PROMPTS, [0, 0], 8, sample.GUIDANCE_SCALE)
    assert torch.isfinite(latents).all()
    first, second = pipeline.draw(PROMPTS, [0, 0], steps=8).float()
    assert first.std() > 10
    assert (first - second).abs().mean() > 10  # same noise: the prompt makes the difference


@pytest.fixture(scope="module")
def pipeline() -> ZooPipeline:
    return ZooPipeline.of("s", "m", "tiny")


def test_a_picture_does_not_depend_on_its_batch(pipeline: ZooPipeline) -> None:
    together = pipeline.draw(PROMPTS, [4, 5], steps=6).int()
    alone = torch.cat(
        [pipeline.draw([PROMPTS[i]], [4 + i], steps=6).int() for i in range(len(PROMPTS))]
    )
    assert (together - alone).abs().max() <= 2


def test_the_seed_alone_fixes_the_noise(pipeline: ZooPipeline) -> None:
    assert torch.equal(starting_noise([1, 2])[1:], starting_noise([2]))
    a = pipeline.draw(PROMPTS[:1] * 2, [1, 2], steps=4)
    b = pipeline.draw(PROMPTS[:1] * 2, [3, 2], steps=4)
    assert not torch.equal(a[0], a[1])
    assert not torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])  # one batch size: another sums in another order


def test_the_picture_is_that_of_diffusers_own_pipeline() -> None:
    mine = ZooPipeline.of("m", "s")
    theirs = StableDiffusionPipeline(
        vae=mine.decoder,
        text_encoder=mine.encoder,
        tokenizer=mine.tokenizer,
        unet=mine.denoiser,
        scheduler=parts.load_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    theirs.set_progress_bar_config(disable=True)
    states = mine.bridge(text.encode(mine.encoder, text.token_ids(mine.tokenizer, ["", *PROMPTS])))
    pictures = theirs(
        prompt_embeds=states[1:],
        negative_prompt_embeds=states[:1].expand(2, -1, -1),
        latents=sample.starting_noise([7, 8]),
        guidance_scale=sample.GUIDANCE_SCALE,
        num_inference_steps=sample.STEPS,
        output_type="np",
    ).images
    seen = mine.draw(PROMPTS, [7, 8]).numpy().astype(int)
    assert np.abs(seen - np.round(pictures * 255)).max() <= 2


@pytest.mark.parametrize("nothing", ["", "   ", ", ,", "!?"])
def test_a_prompt_without_words_is_refused(pipeline: ZooPipeline, nothing: str) -> None:
    with pytest.raises(UnknownPromptError, match=r"prompt 2 of 2 .* has no words"):
        pipeline.draw(["noto, pizza", nothing], [0, 1])


def test_a_prompt_of_a_thousand_words_is_drawn_from_its_beginning(pipeline: ZooPipeline) -> None:
    long = pipeline.draw(["noto, " + "pizza " * 1000], [0], steps=4)
    cut = pipeline.draw(["noto, " + "pizza " * text.MAX_TOKENS], [0], steps=4)
    assert torch.equal(long, cut)


def test_as_many_seeds_as_prompts_are_asked_for(pipeline: ZooPipeline) -> None:
    with pytest.raises(UnknownPromptError, match="2 prompts but 1 seeds"):
        pipeline.draw(PROMPTS, [0])
