"""Input of the evaluation runner: the parts of a mix, their settings, and the prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sdpack.documents.conditioning import Conditioning
from sdpack.domain.latents import LatentSpace
from sdpack.domain.placement import Role
from sdpack.domain.workload import WORKLOAD
from sdpack.engines.session import Session
from sdpack.runtime.pipeline import Request
from sdpack.runtime.sampler import SamplerTable
from sdpack.runtime.tokenizer import PromptTokenizer
from sdpack.store.artifacts import digest


@dataclass(frozen=True)
class LoadablePart:
    """A part that the runner can load.

    Attributes:
        content: hash of its graph; the key under which the store keeps what it draws.
        load: opens a session of it.
        tokenizer: the tokenizer of a text encoder; None for other parts.
        bytes: about how much memory an open session takes.
    """

    content: str
    load: Callable[[], Session]
    tokenizer: PromptTokenizer | None = None
    bytes: int = 0


@dataclass(frozen=True)
class SamplingConfig:
    """How a denoiser is run."""

    sampler: SamplerTable
    conditioning: Conditioning
    guidance_scale: float
    guidance_rescale: float = 0.0
    negative_prompt: str = ""

    @cached_property
    def content(self) -> str:
        """One hash of all of it."""
        return digest(
            {
                "sampler": self.sampler.to_json(),
                "conditioning": self.conditioning.model_dump(mode="json"),
                "guidance": [self.guidance_scale, self.guidance_rescale],
                "negative_prompt": self.negative_prompt,
            }
        )


@dataclass(frozen=True)
class PipelineSpec:
    """The parts of one mix, and how they are run.

    Attributes:
        recipe: how its denoiser is run.
        latents: the space its decoder works in.
        reference: the same parts in fp32, if pictures are compared with theirs.
    """

    parts: Mapping[Role, LoadablePart]
    recipe: SamplingConfig
    latents: LatentSpace
    reference: PipelineSpec | None = None

    @property
    def encoders(self) -> dict[Role, LoadablePart]:
        return {role: part for role, part in self.parts.items() if role.encodes_text}

    @property
    def denoiser(self) -> LoadablePart:
        return self.parts[Role.DENOISER]

    @property
    def decoder(self) -> LoadablePart:
        return self.parts[Role.DECODER]

    @property
    def contents(self) -> dict[str, str]:
        """The hashes that its images depend on, in addition to prompts, seeds and size."""
        parts = {role.value: part.content for role, part in self.parts.items()}
        return {**parts, "recipe": self.recipe.content}


@dataclass(frozen=True)
class EvaluationSet:
    """The prompts that every mix draws, each from the same noise.

    Prompt number i starts from seed i.

    Attributes:
        captions: what judges compare the images with; empty for the prompts themselves.
    """

    prompts: Sequence[str]
    height: int
    width: int
    captions: Sequence[str] = ()

    @property
    def is_large(self) -> bool:
        """Whether each picture takes long to draw."""
        return WORKLOAD.is_large(self.height, self.width)

    def chunks(self, numbers: Iterable[int]) -> list[list[int]]:
        """Prompts in the chunks that are drawn and scored together.

        They end at multiples of their size, wherever the prompts start.
        """
        return _aligned(numbers, WORKLOAD.chunk_of(self.height, self.width))

    def groups(self, numbers: Iterable[int]) -> list[list[int]]:
        """All prompts of the groups that are encoded together, those with these prompts in them."""
        size = WORKLOAD.batch
        groups = sorted({number // size for number in numbers})
        return [
            list(range(group * size, min((group + 1) * size, len(self.prompts))))
            for group in groups
        ]

    def request(self, numbers: Sequence[int], recipe: SamplingConfig) -> Request:
        """The prompts of these numbers, as the pipeline takes them."""
        return Request(
            [self.prompts[i] for i in numbers],
            list(numbers),
            recipe.guidance_scale,
            self.height,
            self.width,
            recipe.negative_prompt,
            recipe.guidance_rescale,
        )

    def caption(self, number: int) -> str:
        """What judges compare the image of a prompt with."""
        return self.captions[number] if self.captions else self.prompts[number]

    def judged(self, numbers: Sequence[int]) -> dict[str, Any]:
        """What scores depend on in addition to images: captions other than the prompts."""
        captions = [self.caption(i) for i in numbers]
        return {} if captions == [self.prompts[i] for i in numbers] else {"captions": captions}

    def inputs(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Everything that the images of these prompts depend on, except the parts."""
        return {
            "prompts": [self.prompts[i] for i in numbers],
            "seeds": list(numbers),
            "size": [self.height, self.width],
        }


def _aligned(numbers: Iterable[int], size: int) -> list[list[int]]:
    chunks: dict[int, list[int]] = {}
    for number in numbers:
        chunks.setdefault(number // size, []).append(number)
    return list(chunks.values())
