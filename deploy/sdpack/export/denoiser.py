"""Denoisers of every family as graphs of one kind.

    sample (N, C, h, w), timestep (1,), encoder_hidden_states (N, T, width), and the family's other
    conditioning, to out_sample (N, C, h, w)

Family-specific details stay inside the graph: packing of Flux's latents, positional embeddings,
the learned variance that PixArt's pipeline discards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from optimum.utils.input_generators import DummyTimestepInputGenerator
from optimum.utils.normalized_config import NormalizedConfig
from torch import Tensor, nn

from sdpack.documents.conditioning import Conditioning, Family, Input
from sdpack.export.denoisers.flux import Chroma, Flux
from sdpack.export.denoisers.flux2 import Flux2
from sdpack.export.denoisers.lumina2 import Lumina2
from sdpack.export.denoisers.ovis_image import OvisImage
from sdpack.export.denoisers.pixart import PixArt, squeezes_checked
from sdpack.export.denoisers.qwen_image import QwenImage
from sdpack.export.denoisers.sana import Sana
from sdpack.export.denoisers.sd3 import SD3
from sdpack.export.denoisers.unet import UNet, UNetXL
from sdpack.export.denoisers.z_image import ZImage
from sdpack.export.families import denoiser_sizes
from sdpack.export.graph import CHECKED_AT, Shape

TIMESTEPS = 1000
TOKENS = 32  # of a text in checks; Z-Image needs a multiple
SEQUENCE = "sequence"

_LATENTS = {0: "batch", 2: "height", 3: "width"}
_STATES = {0: "batch", 1: SEQUENCE}
_ROWS = {0: "batch"}


WRAPPERS: Mapping[Family, Callable[[nn.Module], nn.Module]] = {
    Family.SD: UNet,
    Family.SDXL: UNetXL,
    Family.SD3: SD3,
    Family.PIXART: PixArt,
    Family.FLUX: Flux,
    Family.CHROMA: Chroma,
    Family.FLUX2: Flux2,
    Family.Z_IMAGE: ZImage,
    Family.SANA: Sana,
    Family.LUMINA2: Lumina2,
    Family.QWEN_IMAGE: QwenImage,
    Family.OVIS_IMAGE: OvisImage,
}


class DenoiserPart:
    """A denoiser ready for export; it modifies the model."""

    outputs = ("out_sample",)

    def __init__(self, model: nn.Module, conditioning: Conditioning) -> None:
        self._conditioning = conditioning
        self._config: Any = model.config
        self.module = WRAPPERS[conditioning.family](model).eval()
        special: Mapping[Input, Mapping[int, str]] = {Input.MASK: _STATES, Input.GUIDANCE: {}}
        self.dynamic: Mapping[str, Mapping[int, str]] = {
            "sample": _LATENTS,
            "timestep": {},
            "encoder_hidden_states": _STATES,
            **{name.value: special.get(name, _ROWS) for name in conditioning.inputs},
        }

    def inputs(self, shape: Shape) -> dict[str, Tensor]:
        sizes = denoiser_sizes(
            self._conditioning,
            self._config,
            shape.batch,
            (shape.height, shape.width),
            TOKENS,
        )
        tensors = {name: torch.randn(size) for name, size in sizes.items()}
        tensors["timestep"] = _timestep()
        if Input.MASK in self._conditioning.inputs:
            tensors[Input.MASK] = _mask(*sizes[Input.MASK])
        return tensors

    @property
    def checked_at(self) -> Sequence[Shape]:
        """Shapes to check the export at; transformers also get an odd number of patches."""
        is_unet = self._conditioning.family in (Family.SD, Family.SDXL)
        return CHECKED_AT if is_unet else (*CHECKED_AT, Shape(1, 6, 10))

    def tracing(self) -> AbstractContextManager[None]:
        """Return a context in which the model can be traced."""
        pixart = self._conditioning.family is Family.PIXART
        return squeezes_checked() if pixart else nullcontext()


def _timestep() -> Tensor:
    config = NormalizedConfig(_Vocabulary())
    generator = DummyTimestepInputGenerator("semantic-segmentation", config)
    timesteps: Tensor = generator.generate("timestep")
    return timesteps.reshape(-1)[:1].float()


class _Vocabulary:
    """A config for optimum's timestep generator, which draws from `vocab_size`."""

    vocab_size = TIMESTEPS
    num_channels = text_embeds_hidden_size = 1


def _mask(batch: int, tokens: int) -> Tensor:
    """Return the mask of padded texts of random lengths: int64 (batch, tokens)."""
    lengths = torch.randint(1, tokens + 1, (batch, 1))
    return (torch.arange(tokens).unsqueeze(0) < lengths).long()
