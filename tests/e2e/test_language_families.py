"""Families with language models as text encoders draw what diffusers draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, cast
from unittest import mock

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers import scheduling_scm
from numpy.typing import NDArray
from sdpack.documents.catalog_files import LocatedCatalog
from sdpack.documents.conditioning import ENCODER_OUTPUTS, Family
from sdpack.documents.profile import find_profile
from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision
from sdpack.engines import onnxruntime
from sdpack.export.adopt import Adoption, adopt
from sdpack.pack.context import BuildContext
from sdpack.pack.planning.mix import in_precisions
from sdpack.pack.request import BuildRequest
from sdpack.pack.toolchain import Toolchain
from sdpack.rewrite.onnx_file import MODEL_FILE
from sdpack.runtime.pipeline import Noise, Pipeline, Request
from sdpack.store.artifacts import Store
from sdpack.store.ledger import Ledger

from tests.e2e import families, language_families
from tests.e2e.test_families import FLOW, PROMPTS, SEEDS, SHIFTING, STEPS

SIZES = ((6, 8), (5, 7))  # rows and columns of 2x2 latent pixels, or of latent pixels
FLOW_DPM = partial(
    diffusers.DPMSolverMultistepScheduler,
    use_flow_sigmas=True,
    prediction_type="flow_prediction",
    flow_shift=3.0,
)


@dataclass(frozen=True)
class Model:
    """How a family is drawn by diffusers' pipeline.

    Attributes:
        pixels: side of a latent pixel.
        side: sides of latents are multiples of it.
        tokens: number of tokens of a text.
        packs: whether its pipeline takes packed latents.
        scale: its pipeline's argument for the guidance scale.
        asks_negative: whether its pipeline guides only with a negative prompt.
        more: other arguments of its pipeline.
    """

    scheduler: Any
    pixels: int = 8
    side: int = 2
    tokens: int = 64
    packs: bool = False
    scale: str = "guidance_scale"
    asks_negative: bool = False
    more: dict[str, Any] = field(default_factory=dict)


MODELS = {
    "klein": Model(
        SHIFTING, 16, 1, more={"text_encoder_out_layers": language_families.READ_LAYERS}
    ),
    "z-image": Model(SHIFTING),
    "sana": Model(FLOW_DPM, 32, 1, 32, more={"use_resolution_binning": False}),
    "sana-sprint": Model(
        diffusers.SCMScheduler,
        32,
        1,
        32,
        more={"use_resolution_binning": False, "intermediate_timesteps": None},
    ),
    "lumina2": Model(FLOW, tokens=240),
    "chroma": Model(FLOW, tokens=families.T5_TOKENS, packs=True),
    # Its tokens are bytes here, and most of them are of the text before the prompt.
    "qwen-image": Model(
        SHIFTING, tokens=240, packs=True, scale="true_cfg_scale", asks_negative=True
    ),
    "ovis-image": Model(SHIFTING, tokens=240, packs=True),
}


@dataclass(frozen=True)
class Case:
    family: str
    guidance_scale: float
    prompts: tuple[str, ...] = tuple(PROMPTS)
    negative_prompt: str = ""
    size: tuple[int, int] = SIZES[0]

    @property
    def model(self) -> Model:
        return MODELS[self.family]

    @property
    def latents(self) -> tuple[int, int]:
        """Rows and columns of the latents."""
        rows, columns = self.size
        return rows * self.model.side, columns * self.model.side

    @property
    def image(self) -> tuple[int, int]:
        rows, columns = self.latents
        return rows * self.model.pixels, columns * self.model.pixels

    def __str__(self) -> str:
        return f"{self.family}, {self.guidance_scale}, {self.size}"


CASES = [
    Case("klein", 1.0),
    Case("klein", 4.0, size=SIZES[1]),
    Case("z-image", 0.0),
    Case("z-image", 4.0, negative_prompt="a mat", size=SIZES[1]),
    Case("sana", 1.0, size=SIZES[1]),
    Case("sana", 4.5, negative_prompt="A dog"),
    Case("sana-sprint", 4.5),
    Case("lumina2", 1.0),
    Case("lumina2", 4.0, negative_prompt="a mat", size=SIZES[1]),
    Case("chroma", 1.0, size=SIZES[1]),
    Case("chroma", 5.0, negative_prompt="a dog"),
    Case("ovis-image", 1.0),
    Case("ovis-image", 5.0, negative_prompt="a mat", size=SIZES[1]),
    Case("qwen-image", 1.0),
    Case("qwen-image", 4.0, negative_prompt="a mat", size=SIZES[1]),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The folder of a family's model, and its toolchain for a case; parts are exported once."""
    work = tmp_path_factory.mktemp("language")
    (klein,) = ENCODER_OUTPUTS[Family.FLUX2]
    fewer = (replace(klein, layers=language_families.READ_LAYERS),)
    outputs = mock.patch.dict(cast(Any, ENCODER_OUTPUTS), {Family.FLUX2: fewer})
    ledger = Ledger(work / "ledger.sqlite")

    @cache
    def folder(family: str) -> Path:
        language_families.write_model(work / family, family, MODELS[family].scheduler())
        return work / family

    def make(case: Case) -> tuple[Path, Toolchain]:
        adoption = Adoption(STEPS, case.guidance_scale)
        located = _shorter(adopt(str(folder(case.family)), adoption), case.model.tokens)
        request = BuildRequest(
            find_profile("cpu-2gb"), located, work / "out", asked_sizes=(case.image,)
        )
        context = BuildContext(request, Store(work / "store"), ledger)
        return folder(case.family), Toolchain.of(context)

    with outputs:
        yield make
    ledger.close()


def _shorter(located: LocatedCatalog, tokens: int) -> LocatedCatalog:
    catalog = located.catalog
    encoders = {
        name: encoder.model_copy(update={"tokens": tokens})
        for name, encoder in catalog.text_encoders.items()
    }
    return LocatedCatalog(catalog.model_copy(update={"text_encoders": encoders}), located.folder)


def drawn_here(case: Case, toolchain: Toolchain) -> NDArray[np.uint8]:
    """As a bundle would draw it, from the same graphs."""
    (parts,) = toolchain.context.catalog.mixable()
    mix = in_precisions(parts, [Precision.FP32] * len(parts.names))
    drawer = Pipeline(
        {
            v.role: partial(onnxruntime.load, toolchain.sources.of(v).path(MODEL_FILE))
            for v in mix.variants
        },
        {Role.TEXT_ENCODER: toolchain.tokenizers.of(parts.names[Role.TEXT_ENCODER])},
        lambda _: toolchain.samplers.of(mix.denoiser.candidate, case.latents),
        toolchain.candidates.latents(mix.decoder.candidate),
        conditioning=toolchain.candidates.conditioning(mix.denoiser.candidate),
    )
    return drawer.draw(
        Request(case.prompts, SEEDS, case.guidance_scale, *case.image, case.negative_prompt)
    )


def drawn_there(case: Case, folder: Path, channels: int) -> NDArray[np.float32]:
    """By diffusers' own pipeline, from the same noise."""
    reference, model = language_families.loaded(case.family, folder), case.model
    height, width = case.image
    noise = Noise(SEEDS, (channels, *case.latents))
    start = torch.from_numpy(noise.draw())
    if model.packs:
        start = reference._pack_latents(start, len(SEEDS), channels, *case.latents)
    call = {
        "prompt": list(case.prompts),
        "num_inference_steps": STEPS,
        model.scale: case.guidance_scale,
        "height": height,
        "width": width,
        "output_type": "np",
        "max_sequence_length": model.tokens,
        **model.more,
    }
    if case.negative_prompt or model.asks_negative:
        call["negative_prompt"] = [case.negative_prompt] * len(SEEDS)

    def drawn(*_: Any, **__: Any) -> torch.Tensor:
        return torch.from_numpy(noise.draw())

    # SANA-Sprint's scheduler draws noise at each step.
    with mock.patch.object(scheduling_scm, "randn_tensor", drawn):
        return np.asarray(reference(latents=start, **call).images)


# Their denoisers are compared with diffusers', without an export, in tests of their own as well.
SLOW = ("z-image", "lumina2", "sana-sprint", "ovis-image")


def marked(family: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if family in SLOW else []


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=marked(case.family)) for case in CASES], ids=str
)
def test_a_family_draws_what_diffusers_draws(case: Case, made: Any) -> None:
    folder, toolchain = made(case)
    drawn = drawn_here(case, toolchain)
    (parts,) = toolchain.context.catalog.mixable()
    channels = toolchain.candidates.latents(parts.decoder).channels
    wanted = drawn_there(case, folder, channels)
    assert drawn.shape == wanted.shape == (len(SEEDS), *case.image, 3)
    assert np.abs(drawn / 255 - wanted).max() <= 2 / 255


@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=marked(family)) for family in MODELS]
)
def test_an_empty_prompt_and_one_too_long_are_read_as_diffusers_reads_them(
    family: str, made: Any
) -> None:
    """And the text has an effect: other prompts give other images from the same noise."""
    case = Case(family, 3.0, ("", "a red cat on the mat, " * 40))
    folder, toolchain = made(case)
    (parts,) = toolchain.context.catalog.mixable()
    channels = toolchain.candidates.latents(parts.decoder).channels
    drawn = drawn_here(case, toolchain)
    assert np.abs(drawn / 255 - drawn_there(case, folder, channels)).max() <= 2 / 255
    other = drawn_here(Case(family, 3.0), toolchain)
    assert np.abs(drawn.astype(int) - other).max() > 4
