"""How much of each kind of work is done, depending on the size of the images.

A large image takes a CPU many seconds to draw, and the activations of its parts take gigabytes.
Fewer large images are therefore drawn and observed. All of these numbers are here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """The amounts of work that depend on the size of images, and the sizes of tiles.

    Attributes:
        large_pixels: an image of at least this many pixels is large.
        chunk: prompts whose scores are one row of the ledger, and one task of a worker; of large
            images each is, as it takes long enough.
        batch: texts encoded at once, and images of `batch_pixels` drawn at once; fewer images
            if they are larger.
        calibration_images: images of `batch_pixels` drawn for calibration; fewer if they are
            larger, but at least `fewest_calibration_images`.
        calibration_steps, large_calibration_steps: denoising steps observed of each image, and
            of each large one.
        calibrated_side: side in latent pixels of the centre of a large image's latents that a
            decoder is calibrated on.
        probed_side: the same, for measuring the sensitivity of a decoder's layers.
        huge_probed_side: the same, for any part that is too large to run on whole images.
        calibration_work: multiplications that encoding the calibration prompts may take; a large
            text encoder reads fewer prompts, but at least `fewest_calibration_texts`.
        batch_work: multiplications of the texts that are encoded at once for calibration.
        finalists, large_finalists: mixes drawn in full after the screening, and of large images.
        large_samples: large images that are decoded for a look; of others all are.
        smallest_tile: latent pixels a side; in a smaller tile, borders are most of the work.
        tile_tolerance: how far the statistics of a tiled decoder may still move, in standard
            deviations of what is normalized; about half a level of 255 in images.
    """

    large_pixels: int = 256 * 256
    chunk: int = 16
    batch: int = 16
    batch_pixels: int = 64 * 64
    calibration_images: int = 64
    fewest_calibration_images: int = 2
    calibration_steps: int = 6
    large_calibration_steps: int = 2
    calibrated_side: int = 32
    probed_side: int = 8
    huge_probed_side: int = 16
    calibration_work: float = 2e13
    fewest_calibration_texts: int = 8
    batch_work: float = 1e12
    finalists: int = 24
    large_finalists: int = 8
    large_samples: int = 2
    smallest_tile: int = 32
    tile_tolerance: float = 0.005

    def is_large(self, height: int, width: int) -> bool:
        """Whether an image of this many pixels takes a CPU many seconds."""
        return height * width >= self.large_pixels

    def chunk_of(self, height: int, width: int) -> int:
        """How many images of this many pixels are drawn and scored together."""
        return 1 if self.is_large(height, width) else self.chunk

    def batch_of(self, height: int, width: int) -> int:
        """How many images of this many pixels are drawn at once."""
        return max(1, self.batch * self.batch_pixels // (height * width))

    def calibration_images_of(self, height: int, width: int) -> int:
        """How many images of this many pixels are drawn for calibration."""
        count = self.calibration_images * self.batch_pixels // (height * width)
        return max(self.fewest_calibration_images, count)

    def calibration_texts_of(self, parameters: int, tokens: int) -> int:
        """How many texts of this many tokens a text encoder is calibrated on, at most."""
        most = int(self.calibration_work / (parameters * tokens))
        return max(self.fewest_calibration_texts, most)

    def calibration_batch_of(self, parameters: int, tokens: int) -> int:
        """How many of these texts are encoded at once: all inputs of its layers are in memory."""
        return max(1, min(self.batch, int(self.batch_work / (parameters * tokens))))


WORKLOAD = Workload()
