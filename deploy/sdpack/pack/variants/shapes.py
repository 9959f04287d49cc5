"""The sizes of a variant's inputs: what an engine is built for, and what a measurement feeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sdpack.documents.catalog import Mixable
from sdpack.documents.conditioning import Conditioning, Family, Input
from sdpack.domain.input_range import InputRange
from sdpack.domain.placement import Guidance, Placement, Role
from sdpack.domain.tiles import CORE, FEATURES, GIVEN, HEAD_FILE, LATENTS, SHARED, TAIL_FILE, Split
from sdpack.errors import CatalogError, UnsupportedGraphError
from sdpack.export.families import denoiser_sizes
from sdpack.pack.planning.mix import Variant
from sdpack.pack.request import BuildRequest
from sdpack.rewrite.onnx_file import MODEL_FILE
from sdpack.runtime.text_embeddings import ATTENTION_MASK, IDS

Sizes = tuple[int, ...]
FIXED = frozenset({"timestep", Input.GUIDANCE.value, SHARED})  # of one size whatever the batch


@dataclass(frozen=True)
class Piece:
    """A graph of a part that is loaded as one.

    Attributes:
        file: in the artifact of the variant.
        ranges: as those of InputShapes.
        largest: of every input, the largest sizes.
    """

    file: str
    ranges: Mapping[str, InputRange]
    largest: Mapping[str, Sizes]


@dataclass(frozen=True)
class InputShapes:
    """Shapes of the inputs of every variant of a request.

    Attributes:
        text_length: tokens of a prompt, of each text encoder candidate.
    """

    request: BuildRequest
    text_length: Callable[[str], int]

    def pieces(
        self, variant: Variant, placement: Placement, split: Split | None, whole: str = MODEL_FILE
    ) -> tuple[Piece, ...]:
        """The graphs a variant is loaded as under a placement, in the order they run.

        Args:
            split: of a decoder, how it is cut for tiles; None where it cannot be.
            whole: the file of what is not cut.

        Raises:
            UnsupportedGraphError: the placement wants tiles, and the decoder cannot be cut.
        """
        ranges, largest = self.ranges(variant, placement), self.largest(variant, placement)
        if variant.role is not Role.DECODER or placement.tile is None:
            return (Piece(whole, ranges, largest),)
        if split is None:
            raise UnsupportedGraphError(f"decoder {variant.candidate} cannot be split into tiles")
        every = [
            self._tail_sizes(split, placement.tile, count, latents)
            for latents in self._latent_sizes(variant)
            for count in (self._rows(variant, placement), 1)
        ]
        tail = {
            name: _range_over([sizes[name] for sizes in every])
            for name in every[0]
            if name not in FIXED
        }
        widest = max(every, key=lambda sizes: math.prod(sizes[FEATURES]))
        return Piece(HEAD_FILE, ranges, largest), Piece(TAIL_FILE, tail, widest)

    def tiled_latents(self, variant: Variant, placement: Placement, split: Split) -> list[Sizes]:
        """Of a decoder's latents those that take the most in tiles: the largest, and those whose
        tiles are; a smaller picture may have larger ones.
        """
        assert placement.tile is not None
        tile = placement.tile
        found = self._latent_sizes(variant)
        most = max(found, key=math.prod)
        widest = max(
            found,
            key=lambda latents: math.prod(split.side(side, tile) for side in latents),
        )
        count = self._rows(variant, placement)
        every = [self._sizes(variant, placement, count, latents) for latents in (most, widest)]
        return list(dict.fromkeys(sizes[LATENTS] for sizes in every))

    def _tail_sizes(
        self, split: Split, tile: int, count: int, latents: tuple[int, int]
    ) -> dict[str, Sizes]:
        sides = [split.side(side, tile) for side in latents]
        sizes: dict[str, Sizes] = {FEATURES: (count, split.channels, *sides)}
        if split.norms:
            sizes |= {
                CORE: (1, 1, *sides),
                GIVEN: (count, split.norms, 2, split.groups),
                SHARED: (1,),
            }
        return sizes

    def ranges(self, variant: Variant, placement: Placement) -> dict[str, InputRange]:
        """Of every input with a dynamic size: from the fewest rows and smallest size to the most.

        It is tuned for the largest batch of the size that is measured.
        """
        most = self._rows(variant, placement)
        every = [
            self._sizes(variant, placement, count, latents)
            for latents in self._latent_sizes(variant)
            for count in (most, 1)
        ]
        return {
            name: _range_over([sizes[name] for sizes in every])
            for name in every[0]
            if name not in FIXED
        }

    def largest(self, variant: Variant, placement: Placement) -> dict[str, Sizes]:
        """Of every input, for the largest batch of the picture with the most pixels."""
        latents = max(self._latent_sizes(variant), key=math.prod)
        return self._sizes(variant, placement, self._rows(variant, placement), latents)

    def _latent_sizes(self, variant: Variant) -> Sequence[tuple[int, int]]:
        """Of each size of a picture; a text encoder sees none of it."""
        if variant.role.encodes_text:
            return ((0, 0),)
        return self.request.latent_sizes(variant.role, variant.candidate)

    def _rows(self, variant: Variant, placement: Placement) -> int:
        """The most rows a part is given at once.

        Guidance in one batch doubles those of a denoiser, unless a picture is drawn without.
        """
        most = self.request.batch
        if variant.role is not Role.DENOISER or placement.guidance is Guidance.SEQUENTIAL:
            return most
        scale = self.request.sampling_of(variant.candidate).guidance_scale
        guided = self.request.conditioning(variant.candidate).guided(scale)
        return 2 * most if guided else most

    def _sizes(
        self, variant: Variant, placement: Placement, count: int, latents: tuple[int, int]
    ) -> dict[str, Sizes]:
        if variant.role is Role.DECODER:
            return {LATENTS: (count, self.request.latents(variant.candidate).channels, *latents)}
        if variant.role.encodes_text:
            sizes = (count, self.text_length(variant.candidate))
            masked = self.request.encoder_outputs(variant).masked
            return dict.fromkeys((IDS, ATTENTION_MASK) if masked else (IDS,), sizes)
        conditioning = self.request.conditioning(variant.candidate)
        tokens = self._states_length(variant, conditioning)
        checkpoint = self.request.checkpoint(variant.role, variant.candidate)
        return denoiser_sizes(conditioning, checkpoint.config, count, latents, tokens)

    def _states_length(self, denoiser: Variant, conditioning: Conditioning) -> int:
        """Tokens of all that a denoiser attends to."""
        lengths = {
            self._tokens_heard(parts, conditioning)
            for parts in self.request.located.catalog.mixable()
            if parts.denoiser == denoiser.candidate
        }
        if len(lengths) != 1:
            raise CatalogError(
                f"denoiser {denoiser.candidate}: its text encoders read texts of different "
                f"lengths ({sorted(lengths)}); give them the same number of tokens"
            )
        return lengths.pop()

    def _tokens_heard(self, parts: Mixable, conditioning: Conditioning) -> int:
        def length(role: Role) -> int:
            return self.text_length(parts.names[role])

        match conditioning.family:
            case Family.FLUX:
                return length(Role.TEXT_ENCODER_2)
            case Family.SD3:
                third = Role.TEXT_ENCODER_3
                more = length(third) if third in parts.names else conditioning.absent_tokens
                return length(Role.TEXT_ENCODER) + more
        return length(Role.TEXT_ENCODER)


def _range_over(sizes: Sequence[Sizes]) -> InputRange:
    """The range that takes all of these; tuned for the first."""
    axes = list(zip(*sizes, strict=True))
    return InputRange(tuple(map(min, axes)), sizes[0], tuple(map(max, axes)))
