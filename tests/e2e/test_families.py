"""Every family draws what diffusers draws: tiny random pipelines of the real classes."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image
from sdpack.cli.main import main
from sdpack.documents.bundle import open_bundle
from sdpack.documents.catalog_files import LocatedCatalog
from sdpack.documents.profile import find_profile, profiles_folder
from sdpack.domain.placement import Guidance, Loading, Placement, Role
from sdpack.domain.precision import Precision
from sdpack.engines import onnxruntime
from sdpack.export.adopt import Adoption, adopt
from sdpack.pack.context import BuildContext
from sdpack.pack.planning.mix import in_precisions
from sdpack.pack.request import BuildRequest
from sdpack.pack.toolchain import Toolchain
from sdpack.rewrite.onnx_file import MODEL_FILE
from sdpack.runtime.bundle import pipeline, request
from sdpack.runtime.pipeline import Noise, Pipeline, Request
from sdpack.store.artifacts import Store
from sdpack.store.ledger import Ledger

from tests.e2e import families

# The second is longer than any of the encoders reads.
PROMPTS = ["a red cat on the mat", "a dog, the red cat on a mat and the dog on the red mat, a cat"]
SEEDS = [3, 4]
HEIGHT, WIDTH = 48, 64
STEPS = 3

FLOW = partial(diffusers.FlowMatchEulerDiscreteScheduler, shift=3.0)
SHIFTING = partial(
    diffusers.FlowMatchEulerDiscreteScheduler,
    use_dynamic_shifting=True,
    base_image_seq_len=4,
    max_image_seq_len=64,
)
DIFFUSION = {
    "pndm": partial(diffusers.PNDMScheduler, skip_prk_steps=True, steps_offset=1, **families.BETAS),
    "ddim v": partial(
        diffusers.DDIMScheduler,
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        **families.BETAS,
    ),
    # Its config has neither: Stable Diffusion's pipeline sets steps_offset 1, clip_sample false.
    "ddim": partial(diffusers.DDIMScheduler, **families.BETAS),
    "euler": partial(diffusers.EulerDiscreteScheduler, **families.BETAS),
    "dpm++ karras": partial(
        diffusers.DPMSolverMultistepScheduler, use_karras_sigmas=True, **families.BETAS
    ),
    "tcd": partial(diffusers.TCDScheduler, **families.BETAS),
    "unipc": partial(diffusers.UniPCMultistepScheduler, **families.BETAS),
}
# Two of its noise levels share a timestep; Stable Diffusion's pipeline fails with it, SDXL's not.
COSINE = {
    "dpm++ cosine": partial(
        diffusers.DPMSolverMultistepScheduler,
        use_beta_sigmas=True,
        beta_schedule="squaredcos_cap_v2",
    )
}
LCM = {"lcm": partial(diffusers.LCMScheduler, **families.BETAS)}


@dataclass(frozen=True)
class Case:
    """One picture both sides draw.

    Attributes:
        empties_read: an SDXL that reads an empty negative prompt instead of taking zeros for it.
    """

    family: str
    scheduler: str
    guidance_scale: float
    guidance_rescale: float = 0.0
    negative_prompt: str = ""
    empties_read: bool = False

    @property
    def pixels(self) -> int:
        """A side of a latent pixel."""
        return next((times for times in (4, 16) if f"{times} times" in self.family), 8)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of as many latent pixels, whatever the decoder makes of them."""
        return HEIGHT * self.pixels // 8, WIDTH * self.pixels // 8

    def __str__(self) -> str:
        return f"{self.family}, {self.scheduler}, {self.guidance_scale}"


RESIDENT = Placement()
SCHEDULERS = {**DIFFUSION, **COSINE, **LCM, "flow": FLOW, "shifting": SHIFTING}
CASES = [
    *(Case("sd", name, 4.0, negative_prompt="a mat") for name in DIFFUSION),
    Case("sd", "ddim v", 5.0, guidance_rescale=0.7),
    Case("sd", "euler", 1.0),
    Case("sd, tiny decoder", "euler", 3.0),
    Case("lcm", "lcm", 8.0),
    Case("sdxl", "euler", 5.0),
    Case("sdxl", "euler", 5.0, negative_prompt="a dog"),
    Case("sdxl", "euler", 5.0, empties_read=True),
    Case("sdxl", "dpm++ karras", 4.0, guidance_rescale=0.5),
    Case("sdxl", "unipc", 1.0),
    Case("sdxl, distilled", "euler", 5.0),
    Case("sdxl without a middle", "euler", 3.5),
    Case("sd3", "flow", 4.0, negative_prompt="a mat"),
    Case("sd3", "shifting", 4.0),
    Case("sd3, its t5 left out", "flow", 4.0),
    Case("sd3 without t5", "flow", 4.0),
    Case("pixart", "dpm++ karras", 4.5, negative_prompt="a dog"),
    Case("pixart of 1024", "dpm++ karras", 4.5),
    Case("flux schnell", "flow", 1.0),
    Case("flux dev", "shifting", 3.5),
    Case("sd, 4 times", "euler", 4.0),
    Case("sd, 16 times", "euler", 4.0),
    Case("sd, tiny decoder, 4 times", "euler", 3.0),
    Case("sd3, 4 times", "shifting", 4.0),
    Case("flux dev, 16 times", "shifting", 3.5),
    Case("sdxl", "dpm++ cosine", 5.0),
]


USUAL = {"sd, 4 times": "euler", "sdxl": "euler", "sd3": "flow", "pixart": "dpm++ karras"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module")
def made(work: Path) -> Iterator[Any]:
    """A model of a family with a scheduler, and the toolchain that exports it, each made once."""
    ledger = Ledger(work / "ledger.sqlite")

    @cache
    def make(case: Case) -> tuple[Path, Toolchain]:
        folder = work / str(len(list(work.iterdir())))
        more = {"force_zeros_for_empty_prompt": False} if case.empties_read else {}
        families.write_model(folder, case.family, SCHEDULERS[case.scheduler](), **more)
        without = {Role.TEXT_ENCODER_3} if "left out" in case.family else set()
        adoption = Adoption(STEPS, case.guidance_scale, left_out=frozenset(without))
        located = _shorter(adopt(str(folder), adoption))
        request = BuildRequest(
            find_profile("cpu-2gb"), located, work / "out", asked_sizes=(case.size,)
        )
        return folder, Toolchain.of(BuildContext(request, Store(work / "store"), ledger))

    yield make
    ledger.close()


def _shorter(located: LocatedCatalog) -> LocatedCatalog:
    """T5 reads few tokens, so that the tests are quick."""
    catalog = located.catalog
    encoders = {
        name: encoder.model_copy(update={"tokens": encoder.tokens and families.T5_TOKENS})
        for name, encoder in catalog.text_encoders.items()
    }
    return LocatedCatalog(catalog.model_copy(update={"text_encoders": encoders}), located.folder)


def drawn_here(
    case: Case, toolchain: Toolchain, placement: Placement = RESIDENT
) -> NDArray[np.uint8]:
    """As a bundle would draw it, from the same graphs."""
    (parts,) = toolchain.context.catalog.mixable()
    mix = in_precisions(parts, [Precision.FP32] * len(parts.names))
    drawer = Pipeline(
        {
            v.role: partial(onnxruntime.load, toolchain.sources.of(v).path(MODEL_FILE))
            for v in mix.variants
        },
        {v.role: toolchain.tokenizers.of(v.candidate) for v in mix.variants if v.role.encodes_text},
        lambda _: toolchain.samplers.of(mix.denoiser.candidate),
        toolchain.candidates.latents(mix.decoder.candidate),
        placement,
        toolchain.candidates.conditioning(mix.denoiser.candidate),
    )
    return drawer.draw(
        Request(
            PROMPTS,
            SEEDS,
            case.guidance_scale,
            *case.size,
            case.negative_prompt,
            case.guidance_rescale,
        )
    )


def loaded(family: str, folder: Path) -> Any:
    absent = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
    kind = families.PIPELINES[family]
    wanted = inspect.signature(kind.__init__).parameters
    more = {name: value for name, value in absent.items() if name in wanted}
    if "t5" in family:
        more |= {"text_encoder_3": None, "tokenizer_3": None}
    found = kind.from_pretrained(folder, local_files_only=True, **more)
    found.set_progress_bar_config(disable=True)
    return found


def drawn_there(case: Case, folder: Path, channels: int) -> NDArray[np.float32]:
    """By diffusers' own pipeline, from the same noise."""
    reference = loaded(case.family, folder)
    height, width = case.size
    rows, columns = height // case.pixels, width // case.pixels
    noise = Noise(SEEDS, (channels, rows, columns))
    start = torch.from_numpy(noise.draw())
    call: dict[str, Any] = {
        "prompt": PROMPTS,
        "num_inference_steps": STEPS,
        "guidance_scale": case.guidance_scale,
        "height": height,
        "width": width,
        "output_type": "np",
    }
    if case.negative_prompt:
        call["negative_prompt"] = [case.negative_prompt] * 2
    if case.guidance_rescale:
        call["guidance_rescale"] = case.guidance_rescale
    if "sd3" in case.family or "flux" in case.family:
        call["max_sequence_length"] = families.T5_TOKENS
    if "t5" in case.family:
        call["max_sequence_length"] = 256
    if "pixart" in case.family:
        call |= {"max_sequence_length": families.T5_TOKENS, "use_resolution_binning": False}
    if "flux" in case.family:
        start = reference._pack_latents(start, 2, channels, rows, columns)
    if case.family == "lcm":
        return _with_our_noise(reference, call, start, noise)
    return np.asarray(reference(latents=start, **call).images)


def _with_our_noise(
    reference: Any, call: Mapping[str, Any], start: torch.Tensor, noise: Noise
) -> NDArray[np.float32]:
    """A scheduler that draws noise on the way draws ours."""
    from unittest import mock

    from diffusers.schedulers import scheduling_lcm

    def draw(*_: Any, **__: Any) -> torch.Tensor:
        return torch.from_numpy(noise.draw())

    with mock.patch.object(scheduling_lcm, "randn_tensor", draw):
        return np.asarray(reference(latents=start, **call).images)


# Other layers or scales of families that are drawn anyway.
RARE = ("distilled", "without a middle", "of 1024", "16 times", "sd3, 4 times")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] if case.family.endswith(RARE) else [])
        for case in CASES
    ],
    ids=str,
)
def test_a_family_draws_what_diffusers_draws(case: Case, made: Any) -> None:
    folder, toolchain = made(case)
    drawn = drawn_here(case, toolchain)
    (parts,) = toolchain.context.catalog.mixable()
    channels = toolchain.candidates.latents(parts.decoder).channels
    wanted = drawn_there(case, folder, channels)
    assert drawn.shape == wanted.shape == (len(PROMPTS), *case.size, 3)
    assert np.abs(drawn / 255 - wanted).max() <= 2 / 255
    assert np.abs(drawn[0].astype(int) - drawn[1]).max() > 4


def with_clip_skip(located: LocatedCatalog, count: int) -> LocatedCatalog:
    catalog = located.catalog
    encoders = {
        name: encoder.model_copy(update={"clip_skip": count})
        for name, encoder in catalog.text_encoders.items()
    }
    return LocatedCatalog(catalog.model_copy(update={"text_encoders": encoders}), located.folder)


def drawn_of_texts(reference: Any, **texts: torch.Tensor) -> NDArray[np.float32]:
    """By diffusers' own pipeline, of texts that were read already."""
    drawn = reference(
        **texts,
        latents=torch.from_numpy(Noise(SEEDS, (4, HEIGHT // 8, WIDTH // 8)).draw()),
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        height=HEIGHT,
        width=WIDTH,
        output_type="np",
    )
    return np.asarray(drawn.images)


def test_clip_skip_leaves_out_the_last_layers(made: Any, work: Path) -> None:
    """Diffusers skips them for the prompt alone, others for the negative prompt too; as these do
    sdpack, and so diffusers is given both texts as it reads them with the skip.
    """
    case = Case("sd", "euler", 4.0, negative_prompt="a mat")
    folder, plain = made(case)
    request = replace(
        plain.context.request, located=with_clip_skip(plain.context.request.located, 1)
    )
    skipping = Toolchain.of(replace(plain.context, request=request))
    drawn = drawn_here(case, skipping)
    reference = loaded("sd", folder)
    # diffusers 0.42 looks for the name this had before transformers 5.
    vars(reference.text_encoder)["text_model"] = reference.text_encoder
    said = [
        reference.encode_prompt(texts, None, 1, False, clip_skip=1)[0]
        for texts in (PROMPTS, [case.negative_prompt] * 2)
    ]
    wanted = drawn_of_texts(
        reference,
        prompt_embeds=said[0],
        negative_prompt_embeds=said[1],
    )
    assert np.abs(drawn / 255 - wanted).max() <= 2 / 255
    assert np.abs(drawn.astype(int) - drawn_here(case, plain)).max() > 4


def test_clip_skip_has_no_part_in_a_pooled_text(made: Any) -> None:
    case = Case("sdxl", "euler", 4.0, negative_prompt="a mat")
    folder, plain = made(case)
    request = replace(
        plain.context.request, located=with_clip_skip(plain.context.request.located, 1)
    )
    drawn = drawn_here(case, Toolchain.of(replace(plain.context, request=request)))
    reference = loaded("sdxl", folder)
    said = [
        reference.encode_prompt(texts, None, None, 1, False, clip_skip=1)
        for texts in (PROMPTS, [case.negative_prompt] * 2)
    ]
    wanted = drawn_of_texts(
        reference,
        prompt_embeds=said[0][0],
        pooled_prompt_embeds=said[0][2],
        negative_prompt_embeds=said[1][0],
        negative_pooled_prompt_embeds=said[1][2],
    )
    assert np.abs(drawn / 255 - wanted).max() <= 2 / 255
    assert np.abs(drawn.astype(int) - drawn_here(case, plain)).max() > 4


@pytest.mark.slow
def test_an_embedding_of_several_vectors_is_drawn_whole(made: Any, work: Path) -> None:
    """A pipeline saved after an embedding with three vectors was loaded into it."""
    case = Case("sd", "euler", 4.0, negative_prompt="a mat")
    folder, plain = made(case)
    whole = loaded("sd", folder)
    vectors = torch.randn(3, families.WIDTH, generator=torch.Generator().manual_seed(0))
    whole.load_textual_inversion(vectors, token="dog")
    whole.save_pretrained(work / "inverted")
    located = adopt(str(work / "inverted"), Adoption(STEPS, case.guidance_scale))
    request = replace(plain.context.request, located=located)
    drawn = drawn_here(case, Toolchain.of(replace(plain.context, request=request)))
    wanted = drawn_there(case, work / "inverted", 4)
    assert np.abs(drawn / 255 - wanted).max() <= 2 / 255
    assert np.abs(drawn[1].astype(int) - drawn_here(case, plain)[1]).max() > 4


def test_guidance_in_two_halves_draws_the_same(made: Any) -> None:
    case = Case("sdxl", "euler", 5.0)
    _, toolchain = made(case)
    batched = drawn_here(case, toolchain)
    halves = drawn_here(case, toolchain, Placement(Loading.PHASED, Guidance.SEQUENTIAL))
    assert np.abs(batched.astype(int) - halves).max() <= 1


def run(work: Path, *words: str) -> Result:
    return CliRunner(env={"SDPACK_CACHE": str(work / "cache")}).invoke(main, words)


@pytest.mark.slow
def test_a_model_becomes_a_bundle_for_the_sizes_that_were_asked_for(work: Path) -> None:
    """From a diffusers folder to pictures, by the command line; its schedule knows the size."""
    folder = families.write_model(work / "model", "flux dev", SHIFTING())
    profile = work / "plain.yaml"
    text = (profiles_folder() / "cpu-2gb.yaml").read_text()
    profile.write_text(text.replace("runtime:", "precisions: [fp32, w8]\nruntime:"))
    words = ("--profile", str(profile), "--out", str(work / "bundle"), "--images", "2")
    asked = ("--size", "64,64x48", "--batch", "2", "--steps", "2")
    built = run(work, "build", "--model", str(folder), *words, *asked, "--json")
    assert built.exit_code == 0, built.output
    manifest = open_bundle(work / "bundle")
    assert manifest.evidence.metric == "fidelity to fp32"
    assert manifest.evidence.kid is None
    assert manifest.sampling.sizes == ((64, 64), (48, 64))
    drawer = pipeline(work / "bundle", manifest)
    reference = loaded("flux dev", folder)
    for size in manifest.sampling.sizes:
        pictures = drawer.draw(request(manifest, PROMPTS, SEEDS, size=size))
        assert pictures.shape == (2, *size, 3)
        noise = torch.from_numpy(Noise(SEEDS, (4, size[0] // 8, size[1] // 8)).draw())
        wanted = reference(
            PROMPTS,
            latents=reference._pack_latents(noise, 2, 4, size[0] // 8, size[1] // 8),
            num_inference_steps=2,
            guidance_scale=3.5,
            height=size[0],
            width=size[1],
            max_sequence_length=512,
            output_type="np",
        ).images
        whole = {role: part.precision for role, part in manifest.parts.items()}
        close = 2 / 255 if set(whole.values()) == {Precision.FP32} else 16 / 255
        assert np.abs(pictures / 255 - wanted).max() <= close
    refused = run(work, "run", str(work / "bundle"), "a cat", "--size", "96")
    assert refused.exit_code == 2
    assert "was built for images of 64x64, 64x48 pixels, not 96x96" in refused.output


@pytest.fixture(scope="module")
def narrowed(work: Path) -> Any:
    """A family's bundle in w8 by the command line, built once."""

    @cache
    def build(family: str) -> Path:
        scheduler = SCHEDULERS[USUAL[family]]()
        folder = families.write_model(work / f"narrow-{family}", family, scheduler)
        profile = work / "narrow.yaml"
        text = (profiles_folder() / "cpu-2gb.yaml").read_text()
        profile.write_text(text.replace("runtime:", "precisions: [w8]\nruntime:"))
        out = work / f"narrowed-{family}"
        words = ("--profile", str(profile), "--model", str(folder), "--out", str(out), "--json")
        asked = ("--size", "64", "--steps", "2", "--images", "1")
        runner = CliRunner(env={"SDPACK_CACHE": str(work)})  # where its graphs are already
        built = runner.invoke(main, ["build", *words, *asked])
        assert built.exit_code == 0, built.output
        return out

    return build


@pytest.mark.parametrize("family", ["sd, 4 times", "sdxl", "sd3", "pixart"])
def test_a_family_is_narrowed_to_its_end(family: str, narrowed: Any) -> None:
    """Calibrated, rounded, measured and drawn, by the command line; Flux is above."""
    manifest = open_bundle(narrowed(family))
    assert {part.precision for part in manifest.parts.values()} == {Precision.W8}
    assert manifest.evidence.standings[0].quality.value > 0.7, "fidelity to fp32"


def test_a_bundle_that_draws_another_size_than_it_says_does_not_verify(
    narrowed: Any, work: Path
) -> None:
    """As bundles were built before the decoder was asked how much it enlarges: always 8 times."""
    made = narrowed("sd, 4 times")
    assert open_bundle(made).latents.pixels == 4
    assert run(work, "run", str(made), "a cat", "--out", str(work / "cat.png")).exit_code == 0
    assert Image.open(work / "cat.png").size == (64, 64)
    assert run(work, "verify", str(made)).exit_code == 0
    path = made / "manifest.json"
    values = json.loads(path.read_text())
    values["latents"]["pixels"] = 8
    path.write_text(json.dumps(values))
    seen = run(work, "verify", str(made))
    assert seen.exit_code == 1
    assert "returned images of shape (1, 3, 32, 32) instead of (1, 3, 64, 64)" in seen.output


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("60", "sides are multiples of 16 pixels, not 60x60"),
        ("56", "sides are multiples of 16 pixels, not 56x56"),
        ("big", "'big' is not a size in pixels"),
        ("64x", "is not a size in pixels"),
    ],
)
def test_a_size_that_cannot_be_drawn_is_refused_before_anything_is_made(
    made: Any, work: Path, size: str, said: str
) -> None:
    folder, _ = made(Case("sd", "euler", 1.0))
    words = ("build", "--model", str(folder), "--profile", "cpu-2gb", "--out", str(work / "none"))
    refused = run(work, *words, "--size", size)
    assert refused.exit_code == 2
    assert said in refused.output
    assert not (work / "none").exists()
