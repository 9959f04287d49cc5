"""The sizes of a variant's inputs: what an engine is built for, and what a measurement feeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sdpack.engines.tensorrt_builder import InputRange
from sdpack.errors import CatalogError
from sdpack.pack.mix import Variant
from sdpack.pack.order import Order
from sdpack.placement import Guidance, Placement, Role

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class InputShapes:
    """Shapes of the inputs of every variant of an order.

    Attributes:
        text_length: tokens of a prompt, of each text encoder candidate.
    """

    order: Order
    text_length: Callable[[str], int]

    def ranges(self, variant: Variant, placement: Placement) -> dict[str, InputRange]:
        """Of every input with a dynamic size; any batch up to the profile's."""
        batch = self.order.profile.shapes.batch
        config = self.order.checkpoint(variant.role, variant.candidate).config
        rows = self.order.latent_rows
        if variant.role is Role.TEXT_ENCODER:
            return {"input_ids": upto((batch, self.text_length(variant.candidate)))}
        if variant.role is Role.DECODER:
            sides = [min(placement.tile or side, side) for side in rows]
            return {"latent_sample": upto((batch, config["latent_channels"], *sides))}
        guided = self.order.located.catalog.sampling.guidance_scale > 1
        twice = guided and placement.guidance is Guidance.BATCHED
        count = 2 * batch if twice else batch
        return {
            "sample": upto((count, config["in_channels"], *rows)),
            "encoder_hidden_states": upto(
                (count, self._states_length(variant), config["cross_attention_dim"])
            ),
        }

    def largest(self, variant: Variant, placement: Placement) -> dict[str, Sizes]:
        """Of every input, at the largest."""
        shapes = {name: r.largest for name, r in self.ranges(variant, placement).items()}
        if variant.role is Role.DENOISER:
            shapes["timestep"] = (1,)
        return shapes

    def _states_length(self, denoiser: Variant) -> int:
        lengths = {
            self.text_length(parts.text_encoder)
            for parts in self.order.located.catalog.mixable()
            if parts.denoiser == denoiser.candidate
        }
        if len(lengths) != 1:
            raise CatalogError(
                f"denoiser {denoiser.candidate}: its text encoders read texts of different "
                f"lengths ({sorted(lengths)}); give them tokenizers of one length"
            )
        return lengths.pop()


def upto(sizes: Sizes) -> InputRange:
    """Any batch up to the first of these sizes; tuned for the whole of it."""
    return InputRange((1, *sizes[1:]), sizes, sizes)
