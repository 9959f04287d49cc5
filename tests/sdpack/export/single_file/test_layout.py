"""The bases that come with sdpack have the shapes of the published models."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from accelerate import init_empty_weights
from diffusers.loaders import single_file_utils
from sdpack.documents.conditioning import Family
from sdpack.errors import SourceError
from sdpack.export.sampler import scheduler_table
from sdpack.export.single_file.content import OriginalFile, empty
from sdpack.export.single_file.conversion import convert_model, model_shapes
from sdpack.export.single_file.layout import Layout, base_layout, folder_layout, tokenizer_of
from sdpack.export.single_file.options import BASES
from sdpack.export.single_file.recognition import guess_base

from tests.sdpack.export.single_file import originals
from tests.sdpack.export.single_file.tiny_models import Tiny

# As the papers and model cards give them, or as counted from the published files' headers.
DENOISERS = {
    "sd15": 859_520_964,
    "sd21": 865_910_724,
    "sd21-base": 865_910_724,
    "sdxl": 2_567_463_684,
    "flux-dev": 11_901_408_320,
    "flux-schnell": 11_891_178_560,
}
TEXT_ENCODERS = {
    ("sd15", "text_encoder"): 123_060_480,
    ("sdxl", "text_encoder"): 123_060_480,
    ("sdxl", "text_encoder_2"): 694_659_840,
    ("sd21", "text_encoder"): 340_387_840,
    ("flux-dev", "text_encoder_2"): 4_762_310_656,
}
ORIGINALS = {
    "unet": originals.unet,
    "transformer": originals.sd3_transformer,
    "flux": originals.flux_transformer,
}
FAMILIES = {"sd1": Family.SD, "sd2": Family.SD, "sdx": Family.SDXL, "sd3": Family.SD3}


@pytest.fixture
def _real_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_file_utils, "torch", originals.any_width(3072))


def original_shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    """The shapes of a base's denoiser as a single file has them."""
    component = layout.denoiser
    config = layout.configs[component]
    tensors = empty(model_shapes(layout.class_name(component), config))
    kind = "flux" if layout.name.startswith("flux") else component
    found = originals.prefixed(originals.DENOISER, ORIGINALS[kind](tensors, config))
    return {name: tuple(tensor.shape) for name, tensor in found.items()}


@pytest.mark.usefixtures("_real_width")
@pytest.mark.parametrize(
    "name",
    [pytest.param(b, marks=[pytest.mark.slow] if b.startswith("sd3.5") else []) for b in BASES],
)
def test_a_denoiser_of_full_size_fits_its_base_and_is_told_by_its_keys(name: str) -> None:
    layout = base_layout(name)
    component = layout.denoiser
    shapes = original_shapes(layout)
    made = convert_model(layout.class_name(component), layout.configs[component], empty(shapes))
    numbers = sum(tensor.numel() for tensor in made.values() if tensor.is_meta)
    if name in DENOISERS:
        assert numbers == DENOISERS[name]
    file = OriginalFile(Path(name))
    file.__dict__["shapes"] = shapes
    assert guess_base(file) == ("sd21" if name == "sd21-base" else name)


@pytest.mark.parametrize("name", BASES)
def test_a_vae_of_full_size_fits_its_base(name: str) -> None:
    config = base_layout(name).configs["vae"]
    original = originals.vae(empty(model_shapes("AutoencoderKL", config)), config)
    assert convert_model("AutoencoderKL", config, original)


@pytest.mark.parametrize(("base", "component"), TEXT_ENCODERS)
def test_text_encoders_have_the_published_number_of_parameters(
    base: str, component: str, tmp_path: Path
) -> None:
    layout = base_layout(base)
    layout.write(tmp_path)
    model_class = getattr(transformers, layout.class_name(component))
    with init_empty_weights():
        model = model_class(model_class.config_class.from_pretrained(tmp_path / component))
    # A T5's embedding is there twice on the meta device, but is one tensor.
    shapes = {n: p.shape for n, p in model.named_parameters() if "encoder.embed_tokens" not in n}
    numbers = sum(math.prod(shape) for shape in shapes.values())
    assert numbers == TEXT_ENCODERS[base, component]


@pytest.mark.parametrize("name", BASES)
def test_a_base_is_complete_and_its_scheduler_works(name: str, tmp_path: Path) -> None:
    layout = base_layout(name)
    assert set(layout.components) == set(layout.configs)
    assert {tokenizer_of(each) for each in layout.text_encoders} < set(layout.components)
    layout.write(tmp_path)
    family = FAMILIES.get(name[:3], Family.FLUX)
    table = scheduler_table(tmp_path / "scheduler", family, 4, (64, 64), 1)
    assert table.steps == 4
    assert folder_layout(tmp_path).configs == layout.configs


def test_a_layout_without_a_text_encoder_lacks_its_tokenizer_too() -> None:
    layout = base_layout("sd3-medium").without("text_encoder_3")
    assert layout.text_encoders == ("text_encoder", "text_encoder_2")
    assert "tokenizer_3" not in layout.components


def test_a_damaged_config_of_a_folder_is_named(tiny: Callable[[str], Tiny], tmp_path: Path) -> None:
    index = json.loads((tiny("sd1").folder / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("[]")
    with pytest.raises(SourceError, match=r"vae/config.json is not a JSON object"):
        folder_layout(tmp_path)
