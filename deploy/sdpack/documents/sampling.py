"""The scheduler of a denoiser, and its settings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, NonNegativeFloat, field_serializer, field_validator

from sdpack.documents.document import Document
from sdpack.documents.source import Source

MOST_STEPS = 1000  # number of timesteps that diffusion models are trained with
StepCount = Annotated[int, Field(ge=1, le=MOST_STEPS)]


class Sampling(Document):
    """The scheduler and its settings.

    Attributes:
        steps: number of denoising steps, or several to choose from, such as [4, 8, 25]: each is a
            mix of its own.
        guidance_rescale: how far guided noise is rescaled to the standard deviation of the
            conditional noise, from 0 to 1 (Lin et al. 2023).
        zero_empty_prompt: without a negative prompt, use zeros as unconditional text embeddings.
        distilled: the denoiser draws without guidance, whatever the guidance scale.
    """

    scheduler: Source
    steps: tuple[StepCount, ...] = Field(min_length=1)
    guidance_scale: NonNegativeFloat
    guidance_rescale: float = Field(0.0, ge=0, le=1)
    negative_prompt: str = ""
    zero_empty_prompt: bool = False
    distilled: bool = False

    @field_validator("steps", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple) else (value,)

    @field_validator("steps")
    @classmethod
    def _ascending(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(steps)))

    @field_serializer("steps")
    def _as_written(self, steps: tuple[int, ...]) -> int | list[int]:
        return steps[0] if len(steps) == 1 else list(steps)

    @property
    def most_steps(self) -> int:
        """The largest number of steps to choose from."""
        return self.steps[-1]
