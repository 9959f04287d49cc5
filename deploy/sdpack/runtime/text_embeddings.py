"""Text embeddings: from prompts through text encoders to a denoiser's inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sdpack.documents.conditioning import (
    Conditioning,
    Family,
    Input,
    NegativeSource,
    encoder_outputs,
)
from sdpack.domain.arrays import Float32Array
from sdpack.domain.placement import Role
from sdpack.engines.session import Session
from sdpack.runtime.tokenizer import PromptTokenizer

IDS, ATTENTION_MASK = "input_ids", "attention_mask"
STATES, POOLED = "last_hidden_state", "text_embeds"
TOKEN_MULTIPLE = 32  # Z-Image reads texts in groups of as many tokens


@dataclass(frozen=True)
class TextEmbeddings:
    """Embeddings of N texts, of one encoder or of all of a pipeline's together.

    Attributes:
        states: float32 (N, tokens, width), for cross-attention.
        pooled: float32 (N, width), one vector per text.
        mask: int64 (N, tokens), 0 where a token is padding.
    """

    states: Float32Array | None = None
    pooled: Float32Array | None = None
    mask: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.arrays().values())))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The arrays that are present, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: array for name, array in found.items() if array is not None}

    def _each(self, change: Callable[[NDArray[np.generic]], NDArray[np.generic]]) -> TextEmbeddings:
        return TextEmbeddings(**{name: change(array) for name, array in self.arrays().items()})  # type: ignore[arg-type]

    def rows(self, start: int, stop: int) -> TextEmbeddings:
        """The embeddings of the texts from `start` to `stop`."""
        return self._each(lambda array: array[start:stop])

    def repeated(self, count: int) -> TextEmbeddings:
        """Repeat each text's embeddings this number of times in a row."""
        return self._each(lambda array: np.repeat(array, count, 0))

    def as_negative(self, source: NegativeSource) -> TextEmbeddings | None:
        """The unconditional embeddings of guidance; None without guidance.

        These embeddings are the negative prompt's, or any of the same shape for ZEROS.
        """
        match source:
            case NegativeSource.NONE:
                return None
            case NegativeSource.ZEROS:
                return self._zeroed()
            case NegativeSource.TEXT:
                return self

    def _zeroed(self) -> TextEmbeddings:
        """Zeros in the same shapes; the mask stays."""
        return TextEmbeddings(
            None if self.states is None else np.zeros_like(self.states),
            None if self.pooled is None else np.zeros_like(self.pooled),
            self.mask,
        )

    @classmethod
    def concatenated(cls, texts: Sequence[TextEmbeddings]) -> TextEmbeddings:
        """The embeddings of all texts, in order."""
        names = texts[0].arrays()
        joined = {name: np.concatenate([text.arrays()[name] for text in texts]) for name in names}
        return cls(**joined)


def encode_text(
    session: Session,
    tokenizer: PromptTokenizer,
    prompts: Sequence[str],
    conditioning: Conditioning,
    role: Role,
    negatives: int = 0,
) -> TextEmbeddings:
    """The embeddings of these prompts by the text encoder in a role.

    Args:
        negatives: how many prompts at the start are negative prompts.

    Raises:
        PromptError: a prompt is not valid UTF-8.
        EngineError: the encoder failed.
    """
    inputs = encoder_inputs(tokenizer, prompts, conditioning, role, negatives)
    outputs = session.run(inputs)
    states = np.asarray(outputs[STATES], np.float32) if STATES in outputs else None
    pooled = np.asarray(outputs[POOLED], np.float32) if POOLED in outputs else None
    mask = inputs.get(ATTENTION_MASK)
    kept = tokenizer.kept(len(prompts), negatives)
    if kept is not None and states is not None:
        states = np.take_along_axis(states, kept[..., None], 1)
        mask = None if mask is None else np.take_along_axis(mask, kept, 1)
    return TextEmbeddings(states, pooled, mask)


def encoder_inputs(
    tokenizer: PromptTokenizer,
    prompts: Sequence[str],
    conditioning: Conditioning,
    role: Role,
    negatives: int = 0,
) -> dict[str, NDArray[np.int64]]:
    """The inputs of the text encoder in a role for these prompts.

    Args:
        negatives: how many prompts at the start are negative prompts.

    Raises:
        PromptError: a prompt is not valid UTF-8.
    """
    ids, mask = tokenizer.tokens(readable(prompts, conditioning), negatives)
    masked = encoder_outputs(conditioning.family, role).masked
    return {IDS: ids, ATTENTION_MASK: mask} if masked else {IDS: ids}


def readable(prompts: Sequence[str], conditioning: Conditioning) -> list[str]:
    """Prompts as they are tokenized: in lower case if the denoiser was trained that way."""
    if conditioning.lowercase:
        return [prompt.lower().strip() for prompt in prompts]
    return list(prompts)


def join_embeddings(
    conditioning: Conditioning, by_encoder: Mapping[Role, TextEmbeddings]
) -> TextEmbeddings:
    """The embeddings of all of a pipeline's text encoders, joined as its family requires."""
    texts = [by_encoder[role] for role in Role if role in by_encoder]
    match conditioning.family:
        case Family.SDXL:
            return TextEmbeddings(_side_by_side(texts), texts[-1].pooled)
        case Family.SD3:
            return _as_sd3(conditioning, by_encoder)
        case Family.FLUX:
            return TextEmbeddings(
                by_encoder[Role.TEXT_ENCODER_2].states, by_encoder[Role.TEXT_ENCODER].pooled
            )
        case Family.Z_IMAGE:
            return _whole_groups(texts[0])
        case Family.OVIS_IMAGE:
            return _without_padding(texts[0])
    return texts[0]


def _without_padding(text: TextEmbeddings) -> TextEmbeddings:
    """With zeros as the states of padding."""
    states, mask = text.states, text.mask
    assert states is not None
    assert mask is not None
    return TextEmbeddings(states=states * mask[..., np.newaxis].astype(np.float32), mask=mask)


def _whole_groups(text: TextEmbeddings) -> TextEmbeddings:
    """Padded to a multiple of the tokens that Z-Image reads at once."""
    states, mask = text.states, text.mask
    assert states is not None
    assert mask is not None
    more = -states.shape[1] % TOKEN_MULTIPLE
    return TextEmbeddings(
        states=np.pad(states, ((0, 0), (0, more), (0, 0))), mask=np.pad(mask, ((0, 0), (0, more)))
    )


def _as_sd3(
    conditioning: Conditioning, by_encoder: Mapping[Role, TextEmbeddings]
) -> TextEmbeddings:
    """The CLIPs' states side by side, padded with zeros; then the T5's states, or zeros."""
    clips = [by_encoder[role] for role in (Role.TEXT_ENCODER, Role.TEXT_ENCODER_2)]
    wide, width = _side_by_side(clips), conditioning.states_width
    padded = np.pad(wide, ((0, 0), (0, 0), (0, width - wide.shape[-1])))
    if Role.TEXT_ENCODER_3 in by_encoder:
        more = by_encoder[Role.TEXT_ENCODER_3].states
        assert more is not None
    else:
        more = np.zeros((len(wide), conditioning.absent_tokens, width), np.float32)
    pooled = np.concatenate([clip.pooled for clip in clips if clip.pooled is not None], axis=-1)
    return TextEmbeddings(np.concatenate([padded, more], axis=1), pooled)


def _side_by_side(texts: Sequence[TextEmbeddings]) -> Float32Array:
    return np.concatenate([text.states for text in texts if text.states is not None], axis=-1)


def denoiser_inputs(
    conditioning: Conditioning, text: TextEmbeddings, guidance_scale: float, height: int, width: int
) -> dict[str, NDArray[np.generic]]:
    """A denoiser's inputs other than latents and timestep, for one picture per text.

    Args:
        conditioning: how the denoiser is conditioned.
        text: joint text embeddings.
        guidance_scale: guidance scale, for denoisers that take it as an input.
        height, width: size of an image, in pixels.
    """
    assert text.states is not None
    given: dict[str, NDArray[np.generic]] = {"encoder_hidden_states": text.states}
    for name in conditioning.inputs:
        given[name.value] = _input(name, conditioning, text, guidance_scale, height, width)
    return given


def _input(
    name: Input,
    conditioning: Conditioning,
    text: TextEmbeddings,
    guidance_scale: float,
    height: int,
    width: int,
) -> NDArray[np.generic]:
    def rows(*values: float) -> Float32Array:
        return np.repeat(np.array([values], np.float32), len(text), 0)

    match name:
        case Input.TEXT_EMBEDS | Input.POOLED_PROJECTIONS:
            assert text.pooled is not None
            return text.pooled
        case Input.MASK:
            assert text.mask is not None
            return text.mask
        case Input.TIME_IDS:
            return rows(height, width, 0, 0, height, width)
        case Input.RESOLUTION:
            return rows(height, width)
        case Input.ASPECT_RATIO:
            return rows(height / width)
        case Input.GUIDANCE:
            return np.array([guidance_scale], np.float32)
        case Input.TIMESTEP_COND:
            return rows(*scale_embedding(guidance_scale, conditioning.guidance_width))


def scale_embedding(guidance_scale: float, width: int) -> Float32Array:
    """The guidance scale as an embedding for latent consistency models: float32 (width,).

    It consists of sines and cosines of 1000 (scale - 1) (Luo et al. 2023).
    """
    half = width // 2
    frequencies = np.exp(np.arange(half) * -(np.log(10000.0) / (half - 1)))
    angles = (guidance_scale - 1) * 1000.0 * frequencies
    found = np.concatenate([np.sin(angles), np.cos(angles), np.zeros(width % 2)])
    return np.asarray(found, np.float32)
