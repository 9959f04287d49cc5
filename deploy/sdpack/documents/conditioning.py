"""What a denoiser is told besides its latents, family by family.

    sd       one encoder's last states
    sdxl     two encoders' states before the last, side by side; the second's pooled text; sizes
    sd3      two such encoders, both pooled; a T5's states after them, or zeros in its place
    pixart   a T5's states, and which of them are padding
    flux     one encoder's pooled text; a T5's states

The tables follow the pipelines of diffusers, whose pictures sdpack's are held against.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from pydantic import NonNegativeInt

from sdpack.documents.document import Document
from sdpack.domain.placement import TEXT_ENCODERS, Role


class Family(StrEnum):
    """Denoisers that are told the same things in the same way."""

    SD = "sd"
    SDXL = "sdxl"
    SD3 = "sd3"
    PIXART = "pixart"
    FLUX = "flux"


class States(StrEnum):
    """Which of an encoder's states a denoiser attends to.

    LAST is what comes out of the encoder's final norm, PENULTIMATE what goes into its last layer.
    """

    LAST = "last"
    PENULTIMATE = "penultimate"
    NONE = "none"


@dataclass(frozen=True)
class EncoderOutputs:
    """What one text encoder is asked for.

    Attributes:
        pooled: one vector of the whole text: projected where the encoder has a projection.
        masked: it is told which tokens are padding, and so is the denoiser.
    """

    states: States = States.LAST
    pooled: bool = False
    masked: bool = False


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
}
"""Of each family's text encoders, in the order of their roles."""


def encoder_outputs(family: Family, role: Role) -> EncoderOutputs:
    """What a family asks of the text encoder in a role."""
    return ENCODER_OUTPUTS[family][TEXT_ENCODERS.index(role)]


class Input(StrEnum):
    """What a denoiser may be given besides `sample`, `timestep` and `encoder_hidden_states`.

    Names are those of diffusers; N is the batch.

    Attributes:
        TEXT_EMBEDS: pooled texts, float32 (N, width).
        POOLED_PROJECTIONS: the same, as transformers call it.
        TIME_IDS: original size, crop and target size in pixels, float32 (N, 6).
        MASK: 1 for a token, 0 for padding, int64 (N, tokens).
        RESOLUTION, ASPECT_RATIO: float32 (N, 2) and (N, 1).
        TIMESTEP_COND: the guidance scale in sines and cosines, float32 (N, width).
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
    """What classifier-free guidance moves away from.

    Attributes:
        NONE: nothing; there is no guidance.
        ZEROS: embeddings of zeros, in the shape of a text's.
        TEXT: the embeddings of the negative prompt, which may be empty.
    """

    NONE = auto()
    ZEROS = auto()
    TEXT = auto()


class Conditioning(Document):
    """How one denoiser is told what to draw.

    Attributes:
        inputs: what its graph takes besides the three that all take.
        states_width: what states are padded to with zeros where several encoders' meet.
        absent_tokens: zeros in the place of a text encoder that was left out.
        guidance_width: of TIMESTEP_COND.
        zero_empty: guidance moves away from zeros, not from an empty text, where there is no
            negative prompt.
        lowercase: texts are read in small letters, and without spaces around them.
    """

    family: Family = Family.SD
    inputs: tuple[Input, ...] = ()
    states_width: NonNegativeInt = 0
    absent_tokens: NonNegativeInt = 0
    guidance_width: NonNegativeInt = 0
    zero_empty: bool = False
    lowercase: bool = False

    def guided(self, guidance_scale: float) -> bool:
        """Whether every step asks twice; a denoiser that is told the scale does it by itself, and a
        distilled one of Flux does without.
        """
        if self.family is Family.FLUX:
            return False
        return guidance_scale > 1 and not DISTILLED.intersection(self.inputs)

    def negative(self, guidance_scale: float, negative_prompt: str) -> NegativeSource:
        """What guidance moves away from."""
        if not self.guided(guidance_scale):
            return NegativeSource.NONE
        if self.zero_empty and not negative_prompt:
            return NegativeSource.ZEROS
        return NegativeSource.TEXT
