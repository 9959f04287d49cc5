from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from numpy.typing import NDArray
from sdpack.domain.latents import LatentSpace
from sdpack.domain.placement import Guidance, Loading, Placement, Role
from sdpack.errors import BrokenPictureError, EngineError, PromptError
from sdpack.runtime.pipeline import Noise, Pipeline, Request, to_pictures
from sdpack.runtime.sampler import SamplerTable
from sdpack.runtime.tokenizer import PromptTokenizer

TOKENIZER = Path(__file__).parents[3] / "zoo" / "parts" / "tokenizer"
LATENTS = LatentSpace(channels=4, scaling_factor=1.0, shift_factor=0.0, pixels=8)
ROLES = (Role.TEXT_ENCODER, Role.DENOISER, Role.DECODER)
TABLE = SamplerTable(
    "made up",
    2,
    np.array([900.0, 300.0]),
    np.array([[1, 0, 0, 0.0], [0.8, -0.5, 0, 0.1]]),
    np.array([[0.8, -0.5, 0, 0.1], [0.6, -0.4, -0.3, 0.05]]),
    draws=1,
)


class Fake:
    """A part that computes something simple and keeps count of its loads."""

    def __init__(self, role: Role, log: list[str]) -> None:
        self.role, self.log = role, log
        log.append(f"load {role}")

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self.role is Role.TEXT_ENCODER:
            return {"last_hidden_state": inputs["input_ids"][..., None] / np.float32(3000)}
        if self.role is Role.DENOISER:
            self.log.append(f"batch {len(inputs['sample'])}")
            said = inputs["encoder_hidden_states"].mean((1, 2))[:, None, None, None]
            return {"out_sample": inputs["sample"] * 0.3 + said * inputs["timestep"][0] / 1000}
        return {"sample": np.tanh(inputs["latent_sample"][:, :3].repeat(8, -1).repeat(8, -2))}

    def close(self) -> None:
        self.log.append(f"free {self.role}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pipeline(placement: Placement | None = None) -> tuple[Pipeline, list[str]]:
    log: list[str] = []
    loaders = {role: (lambda role=role: Fake(role, log)) for role in ROLES}
    tokenizers = {Role.TEXT_ENCODER: PromptTokenizer(TOKENIZER)}
    return Pipeline(loaders, tokenizers, lambda _: TABLE, LATENTS, placement or Placement()), log


@pytest.mark.parametrize("pixels", [4, 16])
def test_pictures_of_another_size_than_was_asked_for_are_refused(pixels: int) -> None:
    """As of a bundle whose manifest does not know what its decoder enlarges."""
    drawer = replace(pipeline()[0], latents=replace(LATENTS, pixels=pixels))
    with pytest.raises(EngineError, match="images of shape"):
        drawer.draw(request(height=32, width=48))


def request(**changes: Any) -> Request:
    values = {"prompts": ["a cat", "a dog"], "seeds": [1, 2], "guidance_scale": 2.0}
    return Request(**{**values, "height": 16, "width": 24, **changes})


def test_every_placement_draws_the_same_pictures() -> None:
    wanted = pipeline()[0].draw(request())
    assert wanted.shape == (2, 16, 24, 3)
    for loading in Loading:
        for guidance in Guidance:
            drawn = pipeline(Placement(loading, guidance))[0].draw(request())
            assert np.array_equal(drawn, wanted)


def test_a_picture_is_the_same_alone_and_in_a_batch() -> None:
    together = pipeline()[0].draw(request())
    alone = pipeline()[0].draw(request(prompts=["a dog"], seeds=[2]))
    assert np.array_equal(alone[0], together[1])


def test_phased_holds_one_part_at_a_time() -> None:
    drawer, log = pipeline(Placement(Loading.PHASED))
    drawer.draw(request(guidance_scale=1.0))
    loads = [line for line in log if not line.startswith("batch")]
    assert loads == [f"{what} {role}" for role in ROLES for what in ("load", "free")]


def test_resident_loads_once() -> None:
    drawer, log = pipeline()
    drawer.load()
    drawer.draw(request())
    drawer.draw(request())
    assert [line for line in log if "load" in line] == [f"load {role}" for role in ROLES]
    drawer.close()
    assert log[-3:] == [f"free {role}" for role in ROLES]


@pytest.mark.parametrize(
    ("guidance", "batches"),
    [(Guidance.BATCHED, ["batch 4"] * 2), (Guidance.SEQUENTIAL, ["batch 2"] * 4)],
)
def test_guidance_in_one_batch_or_two(guidance: Guidance, batches: list[str]) -> None:
    drawer, log = pipeline(Placement(guidance=guidance))
    drawer.draw(request())
    assert [line for line in log if line.startswith("batch")] == batches


def test_guidance_of_one_asks_once() -> None:
    drawer, log = pipeline()
    drawer.draw(request(guidance_scale=1.0))
    assert [line for line in log if line.startswith("batch")] == ["batch 2"] * 2


def test_guidance_by_hand() -> None:
    drawer, _ = pipeline()
    asked = request(prompts=["a cat"], seeds=[5], guidance_scale=3.0, negative_prompt="a dog")
    states, empty = drawer.encode(["a cat"]), drawer.encode(["a dog"])
    assert states.states is not None
    assert empty.states is not None
    noise = Noise([5], (4, 2, 3))
    start, more = noise.draw(), noise.draw()
    outputs: list[Any] = []
    for row, t in zip(TABLE.inputs, TABLE.timesteps, strict=True):
        basis = [start, *outputs, *[np.zeros_like(start)] * (2 - len(outputs)), more]
        given = sum(c * b for c, b in zip(row, basis, strict=True))
        said = (states.states, empty.states)
        guided, unguided = (0.3 * given + s.mean() * t / 1000 for s in said)
        outputs.append(unguided + 3.0 * (guided - unguided))
    wanted = sum(c * b for c, b in zip(TABLE.samples[-1], [start, *outputs, more], strict=True))
    assert np.allclose(drawer.denoise(asked, states, empty), wanted, atol=1e-5)


def test_calibration_sees_what_the_denoiser_is_given() -> None:
    drawer, _ = pipeline()
    seen: list[Any] = []
    drawer.observe = seen.append
    drawer.draw(request())
    assert [inputs["timestep"][0] for inputs in seen] == [900, 300]
    assert seen[0]["sample"].shape == (4, 4, 2, 3)


def test_noise_is_unit_and_its_own_for_each_draw() -> None:
    noise = Noise([7], (16, 64, 64))
    first, second = noise.draw(), noise.draw()
    assert abs(first.mean()) < 0.02
    assert abs(first.std() - 1) < 0.02
    assert abs((first * second).mean()) < 0.02
    assert np.array_equal(Noise([7], (16, 64, 64)).draw(), first)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": [], "seeds": []}, "no prompt"),
        ({"seeds": [1]}, "2 prompts but 1 seeds"),
        ({"seeds": [1, -1]}, "seed -1 is out of range"),
        ({"seeds": [1, 2**64]}, "out of range"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PromptError, match=said):
        request(**changes)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5, 3.0])
def test_a_broken_picture_never_passes(value: float) -> None:
    decoded = np.random.default_rng(0).uniform(-1, 1, (2, 3, 8, 8)).astype(np.float32)
    to_pictures(decoded)
    decoded[1] = value
    with pytest.raises(BrokenPictureError):
        to_pictures(decoded)
