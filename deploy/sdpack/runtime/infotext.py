"""How a picture was made, as the text that AUTOMATIC1111's web UI writes into picture files.

    a cat, sitting
    Negative prompt: blurry
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 4, Size: 512x768, Model hash: 1a2b, Model: mine

Many programs read it. The last line has what was set, as `key: value`, and a value with a comma, a
colon or a line break is written as a JSON string. What stands above it is the prompt and, from a
line that begins with `Negative prompt:` on, the negative prompt. The text cannot tell a prompt with
such a line from one with a negative prompt; `GenerationParameters.to_json` can.
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
SHORT_HASH = 10  # characters of a model's hash, as the web UI shows them
FEWEST_SETTINGS = 3  # in a line of settings; a prompt's last line may have a colon too
SETTING = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
SIZE_TEXT = re.compile(r"(\d+)x(\d+)", re.ASCII)


@dataclass(frozen=True)
class GenerationParameters:
    """How one picture was made.

    Attributes:
        guidance_scale: of classifier-free guidance; "CFG scale" in the text.
        width, height: in pixels.
        model: the bundle's name.
        model_hash: of all the bundle's files, 64 hexadecimal digits; see `model_hash`.
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
        """Those of picture `number` of a request to a bundle."""
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
        """The web UI's text."""
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
        """The same as JSON values, for `sdpack`'s own key; prompts are as they were given."""
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
    """One SHA-256 of all that a bundle draws with, 64 hexadecimal digits."""
    return digest(dict(manifest.files))


@cache
def program_version() -> str:
    """As pictures have it: "sdpack 1.2.3"; without the number where it is not installed."""
    try:
        return f"sdpack {version('sdpack')}"
    except PackageNotFoundError:
        return "sdpack"


def parse_infotext(text: str) -> dict[str, str]:
    """What a text says, by the web UI's keys: "Prompt", "Negative prompt", and those of its last
    line; "Size: 512x768" becomes "Size-1" and "Size-2".
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
    """As the web UI quotes; and where readers would trim a value, or take it for a quoted one."""
    plain = value == value.strip() and not value.startswith('"') and not set(value) & set(",:\n")
    return value if plain else json.dumps(value, ensure_ascii=False)


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
