"""The input shapes of variants, for which engines are built and memory is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sdpack.documents.catalog import Mixable
from sdpack.documents.conditioning import Conditioning, Family, Input
from sdpack.domain.input_range import InputRange
from sdpack.domain.placement import Guidance, Placement, Role
from sdpack.domain.tiles import CORE, FEATURES, GIVEN, LATENTS, SHARED, STEM_FILE, TAIL_FILE, Split
from sdpack.errors import CatalogError, UnsupportedGraphError
from sdpack.export.families import denoiser_sizes, most_tokens
from sdpack.pack.candidates import Candidates
from sdpack.pack.planning.mix import Variant
from sdpack.rewrite.onnx_file import MODEL_FILE
from sdpack.runtime.text_embeddings import ATTENTION_MASK, IDS, TOKEN_MULTIPLE

Sizes = tuple[int, ...]
FIXED = frozenset({"timestep", Input.GUIDANCE.value, SHARED})  # their size is fixed


@dataclass(frozen=True)
class Piece:
    """One graph that is loaded for a part: the whole part, or a piece of it.

    Attributes:
        file: its name in the artifact of the variant.
        ranges: range of each input with a dynamic size (`InputShapes.ranges`).
        largest: largest shape of each input.
    """

    file: str
    ranges: Mapping[str, InputRange]
    largest: Mapping[str, Sizes]


@dataclass(frozen=True)
class InputShapes:
    """The input shapes of every variant of a request.

    Attributes:
        text_length: gives the number of tokens that a text encoder candidate reads.
        kept_length: gives the number of these tokens that a denoiser reads; None for all.
    """

    candidates: Candidates
    text_length: Callable[[str], int]
    kept_length: Callable[[str], int] | None = None

    def pieces(
        self, variant: Variant, placement: Placement, split: Split | None, whole: str = MODEL_FILE
    ) -> tuple[Piece, ...]:
        """The graphs that are loaded for a variant in a placement, in the order in which they run.

        Args:
            split: how a decoder is split for tiles; None if it cannot be split.
            whole: the file to load where the variant is not split.

        Raises:
            UnsupportedGraphError: the placement has tiles, and the decoder cannot be split.
        """
        ranges, largest = self.ranges(variant, placement), self.largest(variant, placement)
        if variant.role is not Role.DECODER or placement.tile is None:
            return (Piece(whole, ranges, largest),)
        if split is None:
            raise UnsupportedGraphError(f"decoder {variant.candidate} cannot be split into tiles")
        tails = [
            self._tail_sizes(split, placement.tile, count, latents)
            for latents in self._latent_sizes(variant)
            for count in (self._rows(variant, placement), 1)
        ]
        tail_ranges = {
            name: _range_over([sizes[name] for sizes in tails])
            for name in tails[0]
            if name not in FIXED
        }
        largest_tail = max(tails, key=lambda sizes: math.prod(sizes[FEATURES]))
        return Piece(STEM_FILE, ranges, largest), Piece(TAIL_FILE, tail_ranges, largest_tail)

    def tiled_latents(self, variant: Variant, placement: Placement, split: Split) -> list[Sizes]:
        """The latents of a decoder that take the most memory when they are decoded in tiles.

        These are the largest latents, and the latents with the largest tiles, which a smaller image
        may have.
        """
        assert placement.tile is not None
        tile = placement.tile
        every = self._latent_sizes(variant)
        largest = max(every, key=math.prod)
        largest_tile = max(
            every,
            key=lambda latents: math.prod(split.side(side, tile) for side in latents),
        )
        count = self._rows(variant, placement)
        inputs = [self._sizes(variant, placement, count, x) for x in (largest, largest_tile)]
        return list(dict.fromkeys(sizes[LATENTS] for sizes in inputs))

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
        """Return the range of each input with a dynamic size, from the smallest to the largest.

        Engines are tuned for the largest batch of the size that is measured.
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
        """Return each input's shape for the largest batch of the largest image size."""
        latents = max(self._latent_sizes(variant), key=math.prod)
        return self._sizes(variant, placement, self._rows(variant, placement), latents)

    def _latent_sizes(self, variant: Variant) -> Sequence[tuple[int, int]]:
        """Height and width of the latents of each image size; a text encoder has no latents."""
        if variant.role.encodes_text:
            return ((0, 0),)
        return self.candidates.latent_sizes(variant.role, variant.candidate)

    def _rows(self, variant: Variant, placement: Placement) -> int:
        """The largest batch that a part runs at once.

        Batched guidance doubles the batch of a denoiser, unless images are drawn without guidance.
        """
        request = self.candidates.request
        most = request.batch
        if variant.role is not Role.DENOISER or placement.guidance is Guidance.SEQUENTIAL:
            return most
        scale = request.sampling_of(variant.candidate).guidance_scale
        guided = self.candidates.conditioning(variant.candidate).guided(scale)
        return 2 * most if guided else most

    def _sizes(
        self, variant: Variant, placement: Placement, count: int, latents: tuple[int, int]
    ) -> dict[str, Sizes]:
        if variant.role is Role.DECODER:
            return {LATENTS: (count, self.candidates.latents(variant.candidate).channels, *latents)}
        if variant.role.encodes_text:
            sizes = (count, self.text_length(variant.candidate))
            masked = self.candidates.encoder_outputs(variant).masked
            return dict.fromkeys((IDS, ATTENTION_MASK) if masked else (IDS,), sizes)
        conditioning = self.candidates.conditioning(variant.candidate)
        tokens = self._states_length(variant, conditioning)
        checkpoint = self.candidates.checkpoint(variant.role, variant.candidate)
        most = most_tokens(conditioning.family, checkpoint.config)
        if most and tokens > most:
            raise CatalogError(
                f"denoiser {variant.candidate} reads texts of up to {most} tokens, but its text "
                f"encoder gives {tokens}; lower the encoder's `tokens`"
            )
        return denoiser_sizes(conditioning, checkpoint.config, count, latents, tokens)

    def _states_length(self, denoiser: Variant, conditioning: Conditioning) -> int:
        """The number of tokens in a denoiser's text embeddings."""
        lengths = {
            self._embedding_tokens(parts, conditioning)
            for parts in self.candidates.sets_with(denoiser)
        }
        if len(lengths) != 1:
            raise CatalogError(
                f"denoiser {denoiser.candidate}: its text encoders read texts of different "
                f"lengths ({sorted(lengths)}); give them the same number of tokens"
            )
        return lengths.pop()

    def _embedding_tokens(self, parts: Mixable, conditioning: Conditioning) -> int:
        def length(role: Role) -> int:
            return (self.kept_length or self.text_length)(parts.names[role])

        match conditioning.family:
            case Family.FLUX:
                return length(Role.TEXT_ENCODER_2)
            case Family.SD3:
                third = Role.TEXT_ENCODER_3
                tokens = length(third) if third in parts.names else conditioning.absent_tokens
                return length(Role.TEXT_ENCODER) + tokens
            case Family.Z_IMAGE:
                return math.ceil(length(Role.TEXT_ENCODER) / TOKEN_MULTIPLE) * TOKEN_MULTIPLE
        return length(Role.TEXT_ENCODER)


def _range_over(sizes: Sequence[Sizes]) -> InputRange:
    """The range that covers all of these shapes; engines are tuned for the first."""
    axes = list(zip(*sizes, strict=True))
    return InputRange(tuple(map(min, axes)), sizes[0], tuple(map(max, axes)))
