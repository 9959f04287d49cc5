"""Catalogs of diffusers folders, and what is wrong with some folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from safetensors.torch import load_file, save_file
from sdpack.catalog import LocatedCatalog, Source, read_catalog, write_catalog
from sdpack.errors import CatalogError, SdpackError
from sdpack.export.adopt import Adoption, adopt
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.pickles import convert_pickles
from sdpack.pack.order import Order, check
from sdpack.placement import Role
from sdpack.profile import find_profile

from tests.e2e import families


def written(folder: Path, family: str, **index: Any) -> Path:
    return families.write_model(folder, family, EulerDiscreteScheduler(), **index)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's model, written once."""
    made: dict[str, Path] = {}

    def model(family: str) -> Path:
        if family not in made:
            made[family] = written(tmp_path_factory.mktemp("models") / "m", family)
        return made[family]

    return model


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_has_a_catalog_that_survives_a_file(
    models: Callable[[str], Path], family: str, tmp_path: Path
) -> None:
    found = adopt(str(models(family))).catalog
    (parts,) = found.mixable()
    encoders = sum(name.startswith("text_encoder") for name in families.FAMILIES[family]())
    absent = 1 if family == "sd3 without t5" else 0
    assert len(parts.names) == encoders - absent + 2
    again = read_catalog(write_catalog(found, tmp_path / "written"))
    assert again.catalog == found
    assert again.missing() == []


def test_what_is_usual_for_a_family(models: Callable[[str], Path]) -> None:
    sampling = {f: adopt(str(models(f))).catalog.sampling for f in families.FAMILIES}
    assert (sampling["sd"].steps, sampling["sd"].guidance_scale) == (25, 7.5)
    assert sampling["lcm"].steps == 4
    assert sampling["sdxl"].zero_empty_prompt
    assert not sampling["sd"].zero_empty_prompt
    assert (sampling["flux schnell"].steps, sampling["flux schnell"].guidance_scale) == (4, 1.0)
    assert sampling["flux dev"].guidance_scale == 3.5
    asked = adopt(str(models("sd")), Adoption(7, 2.0, 128)).catalog
    assert (asked.sampling.steps, asked.sampling.guidance_scale, asked.image_size) == (7, 2.0, 128)


def test_a_text_encoder_can_be_left_out(models: Callable[[str], Path]) -> None:
    without = Adoption(left_out=frozenset({Role.TEXT_ENCODER_3}))
    found = adopt(str(models("sd3")), without).catalog
    assert list(found.text_encoders) == ["text-encoder", "text-encoder-2"]


def unknown_class(folder: Path) -> None:
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": "UNet3D"}))


def unknown_conditioning(folder: Path) -> None:
    path = folder / "unet" / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "addition_embed_type": "image_hint"}))


def wider_encoder(folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder")
    families.clip(width=24).save_pretrained(folder / "text_encoder")  # type: ignore[operator]


def other_latents(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    families.kl(16).save_pretrained(folder / "vae")  # type: ignore[operator]


def cut_short(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickled(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()


def no_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def no_denoiser(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "unet": [None, None]}))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (unknown_class, r"class 'UNet3D'; it exports CLIPTextModel.*UNet2DConditionModel"),
        (unknown_conditioning, "addition_embed_type 'image_hint' is a conditioning sdpack"),
        (wider_encoder, r"states of width 16, .*text encoder 24\).* a bridge"),
        (other_latents, "draws latents of 4 channels, vae decodes 16"),
        (cut_short, "diffusion_pytorch_model.safetensors cannot be read"),
        (pickled, r"as a pickle alone .*may run any code .*sdpack catalog convert"),
        (no_index, "model_index.json cannot be read .* give the folder of a diffusers pipeline"),
        (no_denoiser, "it names no unet or transformer"),
    ],
)
def test_what_is_wrong_with_a_model_is_one_line(
    models: Callable[[str], Path], tmp_path: Path, harm: Callable[[Path], None], said: str
) -> None:
    folder = Path(shutil.copytree(models("sd"), tmp_path / "m"))
    harm(folder)
    with pytest.raises(SdpackError, match=said) as caught:
        adopt(str(folder))
    assert "\n" not in str(caught.value)


def test_parts_of_a_catalog_that_were_not_made_for_each_other_are_named(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    located = adopt(str(models("sd")))
    wider_encoder(Path(shutil.copytree(models("sd"), tmp_path / "m")))
    encoder = located.catalog.text_encoders["text-encoder"]
    other = encoder.model_copy(update={"source": Source(path=tmp_path / "m" / "text_encoder")})
    catalog = located.catalog.model_copy(update={"text_encoders": {"wide": other}})
    order = Order(find_profile("cpu-2gb"), LocatedCatalog(catalog, Path()), tmp_path / "out")
    with pytest.raises(CatalogError, match=r"wide \+ unet \+ vae: .*text encoder 24\).* a bridge"):
        check(order)
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_nothing() -> None:
    with pytest.raises(SdpackError, match="no such folder, and it is no hub repository"):
        adopt("nowhere/at/all")


def test_a_pickle_is_converted_when_it_is_asked_for(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models("sd"), tmp_path / "m"))
    before = Checkpoint(folder / "unet").content
    pickled(folder)
    assert convert_pickles(folder) == [folder / "unet" / "diffusion_pytorch_model.safetensors"]
    assert adopt(str(folder)).catalog.denoisers
    seen = dict(Checkpoint(folder / "unet").shapes())
    assert seen == dict(Checkpoint(models("sd") / "unet").shapes())
    assert convert_pickles(folder) == []
    assert before


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": partial(print, "ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(SdpackError, match="cannot be read as tensors alone"):
        convert_pickles(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    torch.save([torch.zeros(2)], tmp_path / "pytorch_model.bin")
    with pytest.raises(SdpackError, match="something else than named tensors"):
        convert_pickles(tmp_path)


def test_loras_are_merged_and_change_the_content(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = models("sd") / "unet"
    plain = Checkpoint(folder)
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    weight = dict(plain.load().named_parameters())[f"{name}.weight"].detach().clone()
    g = torch.Generator().manual_seed(0)
    down = torch.randn(2, weight.shape[1], generator=g)
    up = torch.randn(weight.shape[0], 2, generator=g)
    save_file(
        {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up},
        tmp_path / "lora.safetensors",
    )
    merged = Checkpoint(folder, ((tmp_path, 0.5),))
    seen = dict(merged.load().named_parameters())
    assert torch.allclose(seen[f"{name}.weight"], weight + 0.5 * up @ down, atol=1e-6)
    assert set(seen) == {n for n, _ in plain.load().named_parameters()}
    assert merged.content != plain.content
    assert merged.content != Checkpoint(folder, ((tmp_path, 1.0),)).content


def test_loras_for_a_text_encoder(models: Callable[[str], Path], tmp_path: Path) -> None:
    folder = models("sd") / "text_encoder"
    name = "encoder.layers.0.self_attn.q_proj"
    weight = dict(Checkpoint(folder).load().named_parameters())[f"{name}.weight"].detach().clone()
    down, up = torch.ones(2, weight.shape[1]), torch.ones(weight.shape[0], 2)
    save_file(
        {
            f"text_encoder.{name}.lora_A.weight": down,
            f"text_encoder.{name}.lora_B.weight": up,
        },
        tmp_path / "lora.safetensors",
    )
    seen = dict(Checkpoint(folder, ((tmp_path, 2.0),)).load().named_parameters())
    assert torch.allclose(seen[f"{name}.weight"], weight + 4.0, atol=1e-5)


def test_loras_of_another_model_are_refused(models: Callable[[str], Path], tmp_path: Path) -> None:
    folder = models("sd") / "unet"
    with pytest.raises(SdpackError, match="file of LoRA weights is wanted"):
        _ = Checkpoint(folder, ((tmp_path, 1.0),)).content
    save_file({"transformer.x.lora_A.weight": torch.ones(2, 3)}, tmp_path / "l.safetensors")
    with pytest.raises(SdpackError, match="has no LoRA weights for a UNet2DConditionModel"):
        Checkpoint(folder, ((tmp_path, 1.0),)).load()
