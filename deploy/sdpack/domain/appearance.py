"""How far the images of a mix look like those of the same parts in fp32, and limits for it.

A judge may not notice a tint, or prefer blurred images. These figures need no model. They say only
whether quantization changed the images, not whether they are good.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Appearance:
    """A comparison of images with those of the same parts in fp32, from the same noise.

    Attributes:
        similarity: mean structural similarity; 1 for equal images.
        colour_offset: the largest of the mean differences of red, green and blue, in levels of 255,
            less what chance explains.
        sharpness: the ratio of the mean contrast between neighbouring pixels; above 1 if the
            images are sharper or noisier, below 1 if they are softer.
    """

    similarity: float
    colour_offset: float
    sharpness: float


@dataclass(frozen=True)
class AppearanceLimits:
    """The limits within which a mix may win.

    Attributes:
        least_similarity: a denoiser in few bits draws other images from the same noise, which may
            be as good; below this, hardly anything is left of the image in fp32.
        most_colour_offset: in levels of 255.
        least_sharpness, most_sharpness: bounds of the ratio.
    """

    least_similarity: float = 0.3
    most_colour_offset: float = 8.0
    least_sharpness: float = 0.7
    most_sharpness: float = 1.4

    def broken_by(self, found: Appearance) -> Iterator[str]:
        """Say which limits an appearance breaks, in words."""
        if found.similarity < self.least_similarity:
            yield (
                f"their structural similarity to fp32 is {found.similarity:.2f}, "
                f"below {self.least_similarity:g}"
            )
        if found.colour_offset > self.most_colour_offset:
            yield (
                f"their colour is off by {found.colour_offset:.1f} levels of 255, "
                f"more than {self.most_colour_offset:g}"
            )
        if not self.least_sharpness <= found.sharpness <= self.most_sharpness:
            yield (
                f"their sharpness is {found.sharpness:.2f} times that of fp32, outside "
                f"{self.least_sharpness:g} to {self.most_sharpness:g}"
            )


APPEARANCE_LIMITS = AppearanceLimits()
