"""Generation parameters as the text that AUTOMATIC1111's web UI writes into image files.

    a cat, sitting
    Negative prompt: blurry
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 4, Size: 512x768, Model hash: 1a2b, Model: mine

Many programs read it. The last line lists the settings as `key: value`; a value with a comma, a
colon or a line break is written as a JSON string. The lines above are the prompt and, from a line
that begins with `Negative prompt:` on, the negative prompt. A prompt that itself contains such a
line is ambiguous in this text, but not in `GenerationParameters.to_json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sdpack.documents.manifest import Manifest
from sdpack.runtime.pipeline import Request
from sdpack.runtime.sampler_label import AUTOMATIC, SamplerLabel
from sdpack.store.artifacts import digest

NEGATIVE = "Negative prompt:"
SHORT_HASH = 10  # characters of a model's hash in the web UI
FEWEST_SETTINGS = 3  # a last line with fewer belongs to the prompt, which may contain colons
SETTING = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
SIZE_TEXT = re.compile(r"(\d+)x(\d+)", re.ASCII)


@dataclass(frozen=True)
class GenerationParameters:
    """The parameters of one image.

    Attributes:
        guidance_scale: scale of classifier-free guidance; "CFG scale" in the text.
        width, height: in pixels.
        model: the bundle's name.
        model_hash: hash of all files of the bundle, 64 hexadecimal digits; see `model_hash`.
        sampler: the sampler's names.
    """

    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance_scale: float
    width: int
    height: int
    model: str
    model_hash: str
    sampler: SamplerLabel

    @classmethod
    def of(
        cls, request: Request, number: int, manifest: Manifest, sampler: SamplerLabel
    ) -> GenerationParameters:
        """Return the parameters of image `number` of a request to a bundle."""
        return cls(
            prompt=request.prompts[number],
            negative_prompt=request.negative_prompt,
            seed=request.seeds[number],
            steps=request.steps or manifest.sampling.steps,
            guidance_scale=request.guidance_scale,
            width=request.width,
            height=request.height,
            model=manifest.name,
            model_hash=model_hash(manifest),
            sampler=sampler,
        )

    def infotext(self) -> str:
        """Return the web UI's text."""
        spaced = self.sampler.schedule
        settings = {
            "Steps": self.steps,
            "Sampler": self.sampler.name,
            "Schedule type": None if spaced == AUTOMATIC else spaced,
            "CFG scale": f"{self.guidance_scale:g}",
            "Seed": self.seed,
            "Size": f"{self.width}x{self.height}",
            "Model hash": self.model_hash[:SHORT_HASH],
            "Model": self.model,
            "Version": program_version(),
        }
        given = {key: value for key, value in settings.items() if value is not None}
        last = ", ".join(f"{key}: {_quoted(str(value))}" for key, value in given.items())
        negative = f"{NEGATIVE} {self.negative_prompt}" if self.negative_prompt else None
        return "\n".join(part for part in (self.prompt, negative, last) if part is not None).strip()

    def to_json(self) -> dict[str, Any]:
        """Return the parameters as JSON values, for sdpack's own key; prompts are unchanged."""
        return {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "seed": self.seed,
            "steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "size": f"{self.width}x{self.height}",
            "model": self.model,
            "model_hash": self.model_hash,
            "scheduler": self.sampler.scheduler,
            "version": program_version(),
        }


def model_hash(manifest: Manifest) -> str:
    """Return one SHA-256 of all files of a bundle, 64 hexadecimal digits."""
    return digest(dict(manifest.files))


@cache
def program_version() -> str:
    """Return "sdpack 1.2.3", or "sdpack" if it is not installed as a package."""
    try:
        return f"sdpack {version('sdpack')}"
    except PackageNotFoundError:
        return "sdpack"


def parse_infotext(text: str) -> dict[str, str]:
    """Parse a text into values by the web UI's keys.

    The keys are "Prompt", "Negative prompt" and those of the last line; "Size: 512x768" becomes
    "Size-1" and "Size-2".
    """
    *lines, last = text.strip().split("\n")
    settings = SETTING.findall(last)
    if len(settings) < FEWEST_SETTINGS:
        lines, settings = [*lines, last], []
    lines = [line.strip() for line in lines]
    negative = next((at for at, line in enumerate(lines) if line.startswith(NEGATIVE)), len(lines))
    against = [line.removeprefix(NEGATIVE).strip() for line in lines[negative:]]
    found = {"Prompt": "\n".join(lines[:negative]), "Negative prompt": "\n".join(against)}
    return found | _values({key: _unquoted(value) for key, value in settings})


def _values(settings: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for key, value in settings.items():
        size = SIZE_TEXT.fullmatch(value)
        if size is None:
            found[key] = value
        else:
            found |= {f"{key}-1": size[1], f"{key}-2": size[2]}
    return found


def _quoted(value: str) -> str:
    """Quote a value as the web UI does, and also if readers would trim or unquote it."""
    plain = value == value.strip() and not value.startswith('"') and not set(value) & set(",:\n")
    return value if plain else json.dumps(value, ensure_ascii=False)


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
