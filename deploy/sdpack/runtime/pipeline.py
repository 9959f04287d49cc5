"""Prompt to picture: encode, denoise, decode, as the mix's placement says.

The three stages can be called one by one, so that whoever draws many pictures with mixes that
share a part computes what they share once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sdpack.engines.session import Session
from sdpack.errors import BrokenPictureError, PromptError
from sdpack.placement import Guidance, Loading, Placement, Role
from sdpack.runtime.sampler import SamplerTable, sample
from sdpack.runtime.tiling import decode_tiled
from sdpack.runtime.tokenizer import PromptTokenizer

LARGEST_SEED = 2**63 - 1

Floats = NDArray[np.float32]
Pictures = NDArray[np.uint8]
Loader = Callable[[], Session]


@dataclass(frozen=True)
class Latents:
    """The space a denoiser works in.

    Attributes:
        channels: of a latent pixel.
        scaling_factor, shift_factor: a decoder takes latents / scaling_factor + shift_factor.
        pixels: picture pixels a side of a latent pixel.
    """

    channels: int
    scaling_factor: float = 1.0
    shift_factor: float = 0.0
    pixels: int = 8

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Of one picture's latents; height and width in picture pixels."""
        return self.channels, height // self.pixels, width // self.pixels


@dataclass(frozen=True)
class Request:
    """What one batch shall show; one seed a prompt.

    Attributes:
        guidance_scale: classifier-free guidance (Ho & Salimans 2022); 1 or less does without.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    guidance_scale: float
    height: int
    width: int
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        """Raises PromptError for what cannot be drawn."""
        if not self.prompts:
            raise PromptError("there is no prompt; give at least one")
        if len(self.prompts) != len(self.seeds):
            raise PromptError(
                f"{len(self.prompts)} prompts but {len(self.seeds)} seeds; give one seed a prompt"
            )
        wrong = [seed for seed in self.seeds if not 0 <= seed <= LARGEST_SEED]
        if wrong:
            raise PromptError(f"seed {wrong[0]} is out of range; use 0 to {LARGEST_SEED}")

    @property
    def guided(self) -> bool:
        return self.guidance_scale > 1


@dataclass
class Pipeline:
    """A mix, loaded as its placement says.

    Attributes:
        loaders: what loads each part's engine.
        observe: called with what the denoiser is given at each step, for calibration.
    """

    loaders: Mapping[Role, Loader]
    tokenizer: PromptTokenizer
    sampler: SamplerTable
    latents: Latents
    placement: Placement = field(default_factory=Placement)
    observe: Callable[[dict[str, NDArray[np.generic]]], None] | None = None
    _resident: dict[Role, Session] = field(default_factory=dict, init=False)

    def draw(self, request: Request) -> Pictures:
        """uint8 (N, height, width, 3).

        Raises:
            BrokenPictureError: a picture is not finite, or constant.
            EngineError: a part could not be loaded or run.
        """
        states = self.encode(request.prompts)
        empty = self.encode([request.negative_prompt]) if request.guided else None
        latents = self.denoise(request, states, empty)
        return to_pictures(self.decode(latents))

    def encode(self, prompts: Sequence[str]) -> Floats:
        """Text states float32 (N, T, width)."""
        with self._loaded(Role.TEXT_ENCODER) as session:
            outputs = session.run({"input_ids": self.tokenizer.ids(prompts)})
        return np.asarray(outputs["last_hidden_state"], np.float32)

    def denoise(self, request: Request, states: Floats, empty: Floats | None) -> Floats:
        """Latents float32 (N, C, h, w); `empty` (1, T, width) is what guidance moves away from."""
        shape = self.latents.shape(request.height, request.width)
        noise = Noise(request.seeds, shape)
        against = None if empty is None else np.repeat(empty, len(states), 0)
        with self._loaded(Role.DENOISER) as session:

            def model(given: Floats, timestep: float) -> Floats:
                predict = self._predictor(session, np.array([timestep], np.float32))
                if against is None:
                    return predict(given, states)
                return _guided(predict, given, (against, states), request, self.placement.guidance)

            return sample(self.sampler, noise.draw(), model, noise.draw)

    def _predictor(self, session: Session, timestep: Floats) -> Callable[[Floats, Floats], Floats]:
        def predict(given: Floats, states: Floats) -> Floats:
            inputs = {"sample": given, "timestep": timestep, "encoder_hidden_states": states}
            if self.observe is not None:
                self.observe(dict(inputs))
            return np.asarray(session.run(inputs)["out_sample"], np.float32)

        return predict

    def decode(self, latents: Floats) -> Floats:
        """Pictures float32 (N, 3, H, W), about [-1, 1], of latents as `denoise` gives them."""
        given = latents / self.latents.scaling_factor + self.latents.shift_factor
        with self._loaded(Role.DECODER) as session:

            def decode(part: Floats) -> Floats:
                inputs = {"latent_sample": np.ascontiguousarray(part, np.float32)}
                return np.asarray(session.run(inputs)["sample"], np.float32)

            tile = self.placement.tile
            return decode(given) if tile is None else decode_tiled(decode, given, tile)

    @contextmanager
    def _loaded(self, role: Role) -> Iterator[Session]:
        if self.placement.loading is Loading.PHASED:
            with self.loaders[role]() as session:
                yield session
        else:
            if role not in self._resident:
                self._resident[role] = self.loaders[role]()
            yield self._resident[role]

    def load(self) -> None:
        """Load every part that stays resident, so that the first picture takes no longer."""
        if self.placement.loading is Loading.RESIDENT:
            for role in Role:
                with self._loaded(role):
                    pass

    def close(self) -> None:
        """Free every part."""
        for session in self._resident.values():
            session.close()
        self._resident.clear()


def _guided(
    predict: Callable[[Floats, Floats], Floats],
    given: Floats,
    states: tuple[Floats, Floats],
    request: Request,
    guidance: Guidance,
) -> Floats:
    """Both predictions, in one batch or one after the other, and the step beyond the guided one."""
    if guidance is Guidance.BATCHED:
        both = predict(np.concatenate([given, given]), np.concatenate(states))
        unguided, guided = np.split(both, 2)
    else:
        unguided, guided = (predict(given, said) for said in states)
    return unguided + np.float32(request.guidance_scale) * (guided - unguided)


class Noise:
    """Unit noise for a batch; each picture's comes from its own seed, whatever the batch.

    Philox (Salmon et al. 2011), a counter-based generator, keyed by the seed.
    """

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...]) -> None:
        self._generators = [np.random.Generator(np.random.Philox(seed)) for seed in seeds]
        self._shape = shape

    def draw(self) -> Floats:
        """float32 (N, *shape); another call gives other noise."""
        rows = [g.standard_normal(self._shape, np.float32) for g in self._generators]
        return np.stack(rows)


def to_pictures(decoded: Floats) -> Pictures:
    """uint8 (N, H, W, 3) of float32 (N, 3, H, W) in [-1, 1], clamped and rounded.

    Raises:
        BrokenPictureError: a picture is not finite, or all its pixels are the same.
    """
    if not np.isfinite(decoded).all():
        raise BrokenPictureError(
            "a picture has values that are not finite; a part overflows in its precision: "
            "choose a wider one for it"
        )
    scaled = np.rint((np.clip(decoded, -1, 1) + 1) * 127.5)
    pictures: Pictures = scaled.transpose(0, 2, 3, 1).astype(np.uint8)
    if any(picture.min() == picture.max() for picture in pictures):
        raise BrokenPictureError("a picture is one flat colour; a part is broken in its precision")
    return pictures
