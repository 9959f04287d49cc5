"""Conditioning of denoisers, by family.

    sd       last hidden states of one encoder
    sdxl     penultimate hidden states of two encoders, concatenated by channel; the pooled text
             embeddings of the second; sizes
    sd3      the same of two encoders, pooled text embeddings of both; after these tokens, the
             hidden states of a T5, or zeros without it
    pixart   hidden states of a T5 and its attention mask
    flux     pooled text embeddings of one encoder; hidden states of a T5
    chroma   hidden states of a T5 and its attention mask
    flux2    three hidden states of a language model, concatenated by channel
    z_image  penultimate hidden states of a language model and its attention mask
    sana     hidden states of a language model and its attention mask
    lumina2  penultimate hidden states of a language model and its attention mask
    qwen_image  hidden states of a language model and its attention mask
    ovis_image  hidden states of a language model, with zeros for padding

The tables follow the pipelines of diffusers, which sdpack's images are compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from pydantic import NonNegativeInt

from sdpack.documents.document import Document
from sdpack.domain.placement import TEXT_ENCODERS, Role


class Family(StrEnum):
    """Denoisers with the same conditioning."""

    SD = "sd"
    SDXL = "sdxl"
    SD3 = "sd3"
    PIXART = "pixart"
    FLUX = "flux"
    CHROMA = "chroma"
    FLUX2 = "flux2"
    Z_IMAGE = "z_image"
    SANA = "sana"
    LUMINA2 = "lumina2"
    QWEN_IMAGE = "qwen_image"
    OVIS_IMAGE = "ovis_image"


class KeptNorm(Enum):
    """What of a guided prediction is scaled to the norm of the conditional one.

    Attributes:
        NONE: nothing.
        ROW: each row of latent pixels.
        PATCH: all channels of each 2x2 latent pixels.
    """

    NONE = auto()
    ROW = auto()
    PATCH = auto()


class States(StrEnum):
    """The hidden states of an encoder that a denoiser attends to.

    LAST is the output of the encoder's final norm, PENULTIMATE the input of its last layer,
    SEVERAL the outputs of several layers, concatenated by channel.
    """

    LAST = "last"
    PENULTIMATE = "penultimate"
    SEVERAL = "several"
    NONE = "none"


@dataclass(frozen=True)
class EncoderOutputs:
    """The outputs that a family uses of one text encoder.

    Attributes:
        states: which hidden states.
        pooled: whether the pooled text embedding is used; projected if the encoder has a
            projection.
        masked: whether the encoder gets the attention mask.
        layers: the layers whose outputs SEVERAL concatenates, counted from 1.
    """

    states: States = States.LAST
    pooled: bool = False
    masked: bool = False
    layers: tuple[int, ...] = ()


ENCODER_OUTPUTS: Mapping[Family, tuple[EncoderOutputs, ...]] = {
    Family.SD: (EncoderOutputs(),),
    Family.SDXL: (
        EncoderOutputs(States.PENULTIMATE),
        EncoderOutputs(States.PENULTIMATE, pooled=True),
    ),
    Family.SD3: (
        EncoderOutputs(States.PENULTIMATE, pooled=True),
        EncoderOutputs(States.PENULTIMATE, pooled=True),
        EncoderOutputs(),
    ),
    Family.PIXART: (EncoderOutputs(masked=True),),
    Family.FLUX: (EncoderOutputs(States.NONE, pooled=True), EncoderOutputs()),
    Family.CHROMA: (EncoderOutputs(masked=True),),
    Family.FLUX2: (EncoderOutputs(States.SEVERAL, masked=True, layers=(9, 18, 27)),),
    Family.Z_IMAGE: (EncoderOutputs(States.PENULTIMATE, masked=True),),
    Family.SANA: (EncoderOutputs(masked=True),),
    Family.LUMINA2: (EncoderOutputs(States.PENULTIMATE, masked=True),),
    Family.QWEN_IMAGE: (EncoderOutputs(masked=True),),
    Family.OVIS_IMAGE: (EncoderOutputs(masked=True),),
}
"""For each family, one entry per text encoder, in the order of roles."""


def encoder_outputs(family: Family, role: Role) -> EncoderOutputs:
    """Return the outputs that a family uses of the text encoder in a role."""
    return ENCODER_OUTPUTS[family][TEXT_ENCODERS.index(role)]


class Input(StrEnum):
    """Inputs of denoisers other than `sample`, `timestep` and `encoder_hidden_states`.

    Names are those of diffusers; N is the batch.

    Attributes:
        TEXT_EMBEDS: pooled text embeddings, float32 (N, width).
        POOLED_PROJECTIONS: the same under the name that transformer denoisers use.
        TIME_IDS: original size, crop and target size in pixels, float32 (N, 6).
        MASK: 1 for a token, 0 for padding, int64 (N, tokens).
        RESOLUTION, ASPECT_RATIO: float32 (N, 2) and (N, 1).
        TIMESTEP_COND: sinusoidal embedding of the guidance scale, float32 (N, width).
        GUIDANCE: the guidance scale, float32 (1,).
    """

    TEXT_EMBEDS = "text_embeds"
    POOLED_PROJECTIONS = "pooled_projections"
    TIME_IDS = "time_ids"
    MASK = "encoder_attention_mask"
    RESOLUTION = "resolution"
    ASPECT_RATIO = "aspect_ratio"
    TIMESTEP_COND = "timestep_cond"
    GUIDANCE = "guidance"


DISTILLED = frozenset({Input.TIMESTEP_COND, Input.GUIDANCE})


class NegativeSource(Enum):
    """The unconditional input of classifier-free guidance.

    Attributes:
        NONE: nothing; guidance is off.
        ZEROS: embeddings of zeros, in the shape of a text's.
        TEXT: the embeddings of the negative prompt, which may be empty.
    """

    NONE = auto()
    ZEROS = auto()
    TEXT = auto()


class Conditioning(Document):
    """How one denoiser is conditioned.

    Attributes:
        inputs: its graph's inputs other than the three that all denoisers have.
        states_width: width to which hidden states are zero-padded, if those of several encoders are
            joined.
        absent_tokens: number of zero tokens that replace an omitted text encoder.
        guidance_width: width of TIMESTEP_COND.
        zero_empty: without a negative prompt, the unconditional text embeddings are zeros instead
            of those of an empty text.
        lowercase: prompts are lowercased and stripped.
        distilled: the denoiser was distilled to draw without guidance, so that a guidance scale has
            no effect.
    """

    family: Family = Family.SD
    inputs: tuple[Input, ...] = ()
    states_width: NonNegativeInt = 0
    absent_tokens: NonNegativeInt = 0
    guidance_width: NonNegativeInt = 0
    zero_empty: bool = False
    lowercase: bool = False
    distilled: bool = False

    def guided(self, guidance_scale: float) -> bool:
        """Whether each step calls the denoiser twice, for classifier-free guidance.

        Denoisers that take the guidance scale as an input, and all of Flux, need one call.
        """
        if self.family is Family.FLUX or self.distilled:
            return False
        return self.weight(guidance_scale) > 1 and not DISTILLED.intersection(self.inputs)

    @property
    def kept_norm(self) -> KeptNorm:
        """What of a guided prediction is scaled to the norm of the conditional one."""
        kept = {Family.LUMINA2: KeptNorm.ROW, Family.QWEN_IMAGE: KeptNorm.PATCH}
        return kept.get(self.family, KeptNorm.NONE)

    def weight(self, guidance_scale: float) -> float:
        """The weight of the conditional prediction in guidance: 1 for no guidance.

        Z-Image counts from 0: its scale is the weight beyond the conditional prediction.
        """
        return guidance_scale + 1 if self.family is Family.Z_IMAGE else guidance_scale

    def negative(self, guidance_scale: float, negative_prompt: str) -> NegativeSource:
        """The unconditional input of guidance."""
        if not self.guided(guidance_scale):
            return NegativeSource.NONE
        if self.zero_empty and not negative_prompt:
            return NegativeSource.ZEROS
        return NegativeSource.TEXT
