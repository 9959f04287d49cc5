"""What a model's single file does not tell, and what is given beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Base(StrEnum):
    """The models whose configs come with sdpack."""

    SD15 = "sd15"
    SD21 = "sd21"
    SD21_BASE = "sd21-base"
    SDXL = "sdxl"
    SD3_MEDIUM = "sd3-medium"
    SD35_MEDIUM = "sd3.5-medium"
    SD35_LARGE = "sd3.5-large"
    FLUX_DEV = "flux-dev"
    FLUX_SCHNELL = "flux-schnell"


BASES = tuple(base.value for base in Base)


class Prediction(StrEnum):
    """What a denoiser predicts: the noise, or the velocity (Salimans and Ho 2022)."""

    EPSILON = "epsilon"
    V = "v"

    @property
    def setting(self) -> str:
        """The `prediction_type` of a diffusers scheduler."""
        return "v_prediction" if self is Prediction.V else "epsilon"


@dataclass(frozen=True)
class FileOptions:
    """Options of a model in a single file.

    Attributes:
        base: the model it was trained from, one of `BASES`; None to tell it from the keys.
        prediction: what its denoiser predicts; None for what the file says, or the base's.
        folder: a diffusers folder that has the parts, tokenizers and configs that the file lacks.
        vae: a file or folder of the VAE to use in place of the file's.
        embeddings: files of textual inversions to add.
    """

    base: str | None = None
    prediction: Prediction | None = None
    folder: Path | None = None
    vae: Path | None = None
    embeddings: tuple[Path, ...] = ()

    @property
    def given(self) -> list[str]:
        """The command line's options that were given."""
        values = {
            "--base": self.base,
            "--prediction": self.prediction,
            "--with": self.folder,
            "--vae": self.vae,
            "--embedding": self.embeddings,
        }
        return [name for name, value in values.items() if value]

    def files(self) -> Iterator[Path]:
        """Yield the files and folders that are read."""
        yield from (path for path in (self.folder, self.vae) if path is not None)
        yield from self.embeddings


NO_OPTIONS = FileOptions()
