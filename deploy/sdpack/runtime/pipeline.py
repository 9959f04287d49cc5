"""From prompt to image: encode, denoise, decode, according to the mix's placement.

The three stages can be called one by one, so that a caller that draws with many mixes can compute
their common stages once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sdpack.documents.conditioning import Conditioning, NegativeSource
from sdpack.domain.arrays import Float32Array
from sdpack.domain.latents import COLOURS, LatentSpace
from sdpack.domain.placement import Guidance, Loading, Placement, Role
from sdpack.domain.tiles import LATENTS, PICTURES
from sdpack.engines.session import Session
from sdpack.errors import BrokenPictureError, EngineError, PromptError
from sdpack.runtime.guidance import combined, with_norms_of
from sdpack.runtime.sampler import SamplerTable, Stepped, sample
from sdpack.runtime.text_embeddings import (
    TextEmbeddings,
    denoiser_inputs,
    encode_text,
    join_embeddings,
)
from sdpack.runtime.tokenizer import PromptTokenizer

LARGEST_SEED = 2**63 - 1

Pictures = NDArray[np.uint8]
Loader = Callable[[], Session]
Conditions = dict[str, NDArray[np.generic]]
"""A denoiser's inputs, by name."""


@dataclass(frozen=True)
class Request:
    """The pictures of one batch; one seed per prompt.

    Attributes:
        guidance_scale: classifier-free guidance (Ho & Salimans 2022); 1 or less disables
            guidance.
        guidance_rescale: 0 to 1; how much of the guided prediction is rescaled to the standard
            deviation of the conditional one (Lin et al. 2023, section 3.4).
        height, width: in pixels.
        steps: None for the sampler's own number.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    guidance_scale: float
    height: int
    width: int
    negative_prompt: str = ""
    guidance_rescale: float = 0.0
    steps: int | None = None

    def __post_init__(self) -> None:
        """Raises PromptError if it cannot be drawn."""
        if not self.prompts:
            raise PromptError("no prompt was given; give at least one")
        if len(self.prompts) != len(self.seeds):
            raise PromptError(
                f"{len(self.prompts)} prompts but {len(self.seeds)} seeds; give one seed per prompt"
            )
        wrong = [seed for seed in self.seeds if not 0 <= seed <= LARGEST_SEED]
        if wrong:
            raise PromptError(f"seed {wrong[0]} is out of range; use 0 to {LARGEST_SEED}")


@dataclass
class Pipeline:
    """A mix that draws; its parts are loaded according to its placement.

    Attributes:
        loaders: open each part's engine.
        tokenizers: the tokenizer of each text encoder.
        sampler: returns the scheduler's table for a request.
        observe: called with the denoiser's inputs at each step, for calibration.
    """

    loaders: Mapping[Role, Loader]
    tokenizers: Mapping[Role, PromptTokenizer]
    sampler: Callable[[Request], SamplerTable]
    latents: LatentSpace
    placement: Placement = field(default_factory=Placement)
    conditioning: Conditioning = field(default_factory=Conditioning)
    observe: Callable[[dict[str, NDArray[np.generic]]], None] | None = None
    _resident: dict[Role, Session] = field(default_factory=dict, init=False)

    def draw(self, request: Request, stepped: Stepped | None = None) -> Pictures:
        """Draw images, uint8 (N, height, width, 3).

        Args:
            request: prompts, seeds and settings.
            stepped: as in `denoise`.

        Raises:
            BrokenPictureError: an image has non-finite values or is constant.
            EngineError: a part could not be loaded or run.
        """
        text, negative = self.texts(request)
        return to_pictures(self.decode(self.denoise(request, text, negative, stepped)))

    def texts(self, request: Request) -> tuple[TextEmbeddings, TextEmbeddings | None]:
        """Embeddings of the prompts, and of one text that guidance moves away from, if any."""
        source = self.conditioning.negative(request.guidance_scale, request.negative_prompt)
        if source is NegativeSource.TEXT:
            text, negative = self._encoded(request.prompts, [request.negative_prompt])
            return text, negative
        text = self.encode(request.prompts)
        return text, text.rows(0, 1).as_negative(source)

    def encode(self, prompts: Sequence[str]) -> TextEmbeddings:
        """The embeddings of all text encoders, joined."""
        (text,) = self._encoded(prompts)
        return text

    def _encoded(self, *batches: Sequence[str]) -> list[TextEmbeddings]:
        """The embeddings of each batch of prompts; each encoder is loaded once.

        Only the first batch holds prompts; others hold negative prompts.
        """
        per_batch: list[dict[Role, TextEmbeddings]] = [{} for _ in batches]
        for role in self._roles:
            if role.encodes_text:
                tokenizer = self.tokenizers[role]
                with self._loaded(role) as session:
                    for number, prompts in enumerate(batches):
                        negatives = len(prompts) if number else 0
                        per_batch[number][role] = encode_text(
                            session, tokenizer, prompts, self.conditioning, role, negatives
                        )
        return [join_embeddings(self.conditioning, of_batch) for of_batch in per_batch]

    @property
    def _roles(self) -> list[Role]:
        return [role for role in Role if role in self.loaders]

    def denoise(
        self,
        request: Request,
        text: TextEmbeddings,
        negative: TextEmbeddings | None,
        stepped: Stepped | None = None,
    ) -> Float32Array:
        """Latents float32 (N, C, h, w).

        Args:
            request: seeds and settings.
            text: text embeddings of the prompts.
            negative: unconditional text embeddings of one text; None disables guidance.
            stepped: as in `sample`.
        """
        table = self.sampler(request)
        noise = Noise(request.seeds, self.latents.shape(request.height, request.width))
        texts = [text] if negative is None else [negative.repeated(len(text)), text]
        conditions = [self._conditions(request, half) for half in texts]
        weight = self.conditioning.weight(request.guidance_scale)
        kept_norm = self.conditioning.kept_norm
        with self._loaded(Role.DENOISER) as session:

            def model(given: Float32Array, timestep: float) -> Float32Array:
                predict = self._predictor(session, np.array([timestep], np.float32))
                if len(conditions) == 1:
                    return predict(given, conditions[0])
                halves = _halves(predict, given, conditions, self.placement.guidance)
                noise = combined(*halves, weight, request.guidance_rescale)
                return with_norms_of(halves[1], noise, kept_norm)

            return sample(table, noise.draw(), model, noise.draw, stepped)

    def _conditions(self, request: Request, text: TextEmbeddings) -> Conditions:
        scale = request.guidance_scale
        return denoiser_inputs(self.conditioning, text, scale, request.height, request.width)

    def _predictor(
        self, session: Session, timestep: Float32Array
    ) -> Callable[[Float32Array, Conditions], Float32Array]:
        def predict(given: Float32Array, conditions: Conditions) -> Float32Array:
            inputs: Conditions = {"sample": given, "timestep": timestep, **conditions}
            if self.observe is not None:
                self.observe(dict(inputs))
            return np.asarray(session.run(inputs)["out_sample"], np.float32)

        return predict

    def decode(self, latents: Float32Array) -> Float32Array:
        """Pictures float32 (N, 3, H, W), about [-1, 1], of latents from `denoise`.

        Raises:
            EngineError: the decoder failed, or its pictures have the wrong size.
        """
        given = self.latents.rescaled(latents)
        with self._loaded(Role.DECODER) as session:
            made = session.run({LATENTS: np.ascontiguousarray(given, np.float32)})
        pictures = np.asarray(made[PICTURES], np.float32)
        height, width = (self.latents.pixels * side for side in latents.shape[-2:])
        if pictures.shape != (len(latents), COLOURS, height, width):
            raise EngineError(
                f"the decoder returned images of shape {pictures.shape} instead of "
                f"{(len(latents), COLOURS, height, width)}; build the bundle again"
            )
        return pictures

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
        """Load every part that stays resident, so that the first picture is as fast as the next."""
        if self.placement.loading is Loading.RESIDENT:
            for role in self._roles:
                with self._loaded(role):
                    pass

    def close(self) -> None:
        """Free every part."""
        for session in self._resident.values():
            session.close()
        self._resident.clear()


def _halves(
    predict: Callable[[Float32Array, Conditions], Float32Array],
    given: Float32Array,
    conditions: Sequence[Conditions],
    guidance: Guidance,
) -> tuple[Float32Array, Float32Array]:
    """The predictions with the first and with the second conditions.

    Args:
        given: the model input, float32 (N, C, h, w).
        conditions: the negative ones, then those of the prompts.
    """
    if guidance is Guidance.BATCHED:
        both = predict(np.concatenate([given, given]), _together(conditions, len(given)))
        unguided, guided = np.split(both, 2)
        return unguided, guided
    return predict(given, conditions[0]), predict(given, conditions[1])


def _together(conditions: Sequence[Conditions], rows: int) -> Conditions:
    """Both halves in one batch; inputs without a batch axis stay as they are."""
    first, second = conditions
    return {
        name: np.concatenate([array, second[name]]) if len(array) == rows else array
        for name, array in first.items()
    }


class Noise:
    """Normal noise for a batch; each picture's depends on its own seed only.

    The generator is Philox (Salmon et al. 2011), counter-based and keyed by the seed.
    """

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...]) -> None:
        self._generators = [np.random.Generator(np.random.Philox(seed)) for seed in seeds]
        self._shape = shape

    def draw(self) -> Float32Array:
        """float32 (N, *shape); every call draws new noise."""
        rows = [g.standard_normal(self._shape, np.float32) for g in self._generators]
        return np.stack(rows)


def to_pictures(decoded: Float32Array) -> Pictures:
    """uint8 (N, H, W, 3) of float32 (N, 3, H, W) in [-1, 1], clamped and rounded.

    Raises:
        BrokenPictureError: an image has non-finite values, or all its pixels are equal.
    """
    if not np.isfinite(decoded).all():
        raise BrokenPictureError(
            "an image has values that are not finite: a part overflows in its precision; "
            "choose a wider precision for it"
        )
    scaled = np.rint((np.clip(decoded, -1, 1) + 1) * 127.5)
    pictures: Pictures = scaled.transpose(0, 2, 3, 1).astype(np.uint8)
    if any(picture.min() == picture.max() for picture in pictures):
        raise BrokenPictureError(
            "an image is one flat colour: a part fails in its precision; "
            "choose a wider precision for it"
        )
    return pictures
