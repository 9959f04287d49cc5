"""Catalogs of diffusers folders, and what is wrong with some folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from diffusers import DDIMScheduler
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from sdpack.cli.main import main
from sdpack.documents.catalog_files import LocatedCatalog, read_catalog, write_catalog
from sdpack.documents.profile import find_profile
from sdpack.documents.source import Source
from sdpack.domain.placement import Role
from sdpack.errors import CatalogError, SchedulerError, SdpackError
from sdpack.export.adopt import Adoption, adopt
from sdpack.export.checkpoint import Checkpoint
from sdpack.pack.candidates import Candidates
from sdpack.pack.checks import check
from sdpack.pack.request import BuildRequest

from tests.e2e import families


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
    assert (sampling["sd"].steps, sampling["sd"].guidance_scale) == ((25,), 7.5)
    assert sampling["lcm"].steps == (4,)
    assert sampling["sdxl"].zero_empty_prompt
    assert not sampling["sd"].zero_empty_prompt
    assert (sampling["flux schnell"].steps, sampling["flux schnell"].guidance_scale) == ((4,), 1.0)
    assert sampling["flux dev"].guidance_scale == 3.5
    asked = adopt(str(models("sd")), Adoption(7, 2.0, 128)).catalog
    found = asked.sampling.steps, asked.sampling.guidance_scale, asked.image_size
    assert found == ((7,), 2.0, 128)


@pytest.mark.parametrize(
    ("family", "side"),
    [
        # 8 latent pixels a side, by what its denoiser's config says
        ("sd", 8 * 8),
        ("sd, 4 times", 8 * 4),
        ("sd, 16 times", 8 * 16),
        ("sd, tiny decoder, 4 times", 8 * 4),
        ("sd3, 4 times", 8 * 4),
        # 128, which diffusers' pipeline of Flux takes whatever a config says
        ("flux dev", 128 * 8),
        ("flux dev, 16 times", 128 * 16),
    ],
)
def test_a_picture_is_as_large_as_the_decoder_makes_it(
    models: Callable[[str], Path], family: str, side: int
) -> None:
    assert adopt(str(models(family))).catalog.image_size == side


def changed(folder: Path, part: str, **changes: Any) -> None:
    path = folder / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_denoiser_of_two_sides_draws_squares_of_the_shorter(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models("sd, 4 times"), tmp_path / "m"))
    changed(folder, "unet", sample_size=[16, 12])
    assert adopt(str(folder)).catalog.image_size == 12 * 4


def ordered(folder: Path, size: tuple[int, int]) -> Candidates:
    return Candidates(
        BuildRequest(
            find_profile("cpu-2gb"), adopt(str(folder)), folder / "out", asked_sizes=(size,)
        )
    )


@pytest.mark.parametrize(("family", "step"), [("sd, 4 times", 8), ("sd, 16 times", 32)])
def test_sizes_are_those_the_decoder_and_the_denoiser_can_draw(
    models: Callable[[str], Path], family: str, step: int
) -> None:
    """The UNet halves its latents once: a picture's sides are multiples of twice a latent pixel."""
    check(ordered(models(family), (3 * step, 5 * step)))
    found = ordered(models(family), (3 * step, 5 * step))
    assert found.latent_sizes(Role.DENOISER, "unet") == ((6, 10),)
    assert found.latent_sizes(Role.DECODER, "vae") == ((6, 10),)
    with pytest.raises(CatalogError, match=f"multiples of {step} pixels, not"):
        check(ordered(models(family), (3 * step, 3 * step + step // 2)))


def test_a_size_beyond_a_transformer_s_positions_is_refused(models: Callable[[str], Path]) -> None:
    """12 positions of 2 latent pixels a side, each of them 4 pixels."""
    check(ordered(models("sd3, 4 times"), (96, 96)))
    with pytest.raises(CatalogError, match="sides of up to 96 pixels, but 104x96 is larger"):
        check(ordered(models("sd3, 4 times"), (96, 104)))


def test_decoders_that_enlarge_differently_are_not_compared(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    catalog = adopt(str(models("sd"))).catalog
    other = adopt(str(models("sd, 4 times"))).catalog.decoders["vae"]
    both = catalog.model_copy(update={"decoders": {**catalog.decoders, "small": other}})
    request = BuildRequest(find_profile("cpu-2gb"), LocatedCatalog(both, Path()), tmp_path / "out")
    with pytest.raises(CatalogError, match=r"differently \(small 4 times, vae 8 times\)"):
        check(Candidates(request))


def test_a_scheduler_that_cannot_be_used_is_refused_before_anything_is_made(
    tmp_path: Path,
) -> None:
    scheduler = DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    folder = families.write_model(tmp_path / "m", "sd", scheduler)
    with pytest.raises(SchedulerError, match="set rescale_betas_zero_snr to false"):
        check(ordered(folder, (64, 64)))


def test_a_text_encoder_can_be_left_out(models: Callable[[str], Path]) -> None:
    without = Adoption(left_out=frozenset({Role.TEXT_ENCODER_3}))
    found = adopt(str(models("sd3")), without).catalog
    assert list(found.text_encoders) == ["text-encoder", "text-encoder-2"]


@pytest.mark.parametrize(
    ("family", "role"),
    [
        ("flux dev", Role.TEXT_ENCODER_2),
        ("sd3", Role.TEXT_ENCODER),
        ("sdxl", Role.TEXT_ENCODER_2),
    ],
)
def test_what_cannot_be_left_out_is_told(
    models: Callable[[str], Path], family: str, role: Role
) -> None:
    with pytest.raises(CatalogError, match=f"needs its {role.value}"):
        adopt(str(models(family)), Adoption(left_out=frozenset({role})))


def test_how_far_each_pixart_reads(models: Callable[[str], Path]) -> None:
    tokens = {
        family: adopt(str(models(family))).catalog.text_encoders["text-encoder"].tokens
        for family in ("pixart", "pixart of 1024")
    }
    assert tokens == {"pixart": 300, "pixart of 1024": 120}


def unknown_class(folder: Path) -> None:
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": "UNet3D"}))


def unknown_conditioning(folder: Path) -> None:
    path = folder / "unet" / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "addition_embed_type": "image_hint"}))


def wider_encoder(folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder")
    families.clip(width=24).save_pretrained(folder / "text_encoder")


def other_latents(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    families.kl(16).save_pretrained(folder / "vae")


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
        (
            unknown_conditioning,
            r"unet/config\.json: addition_embed_type is 'image_hint', so the",
        ),
        (wider_encoder, r"states of width 16, .*text encoder 24\).* a bridge"),
        (other_latents, "makes latents of 4 channels, but vae decodes 16"),
        (cut_short, "diffusion_pytorch_model.safetensors cannot be read"),
        (pickled, r"only as a pickle .*may run any code .*sdpack catalog convert"),
        (no_index, "model_index.json cannot be read .* give the folder of a diffusers pipeline"),
        (no_denoiser, "names no unet or transformer"),
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
    request = BuildRequest(
        find_profile("cpu-2gb"), LocatedCatalog(catalog, Path()), tmp_path / "out"
    )
    with pytest.raises(CatalogError, match=r"wide \+ unet \+ vae: .*text encoder 24\).* a bridge"):
        check(Candidates(request))
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_nothing() -> None:
    here = Path("nowhere/at/all").absolute()
    with pytest.raises(SdpackError, match=f"no folder {here} .* not the name of a hub repository"):
        adopt("nowhere/at/all")


def test_a_mistyped_folder_is_looked_for_in_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "models" / "photo").mkdir(parents=True)
    with pytest.raises(SdpackError) as caught:
        adopt("models/foto")
    said = str(caught.value)
    assert f"there is no folder {tmp_path}/models/foto (did you mean models/photo?)" in said
    assert "looked up on the hub: models/foto is not on this machine" in said
    with pytest.raises(SdpackError, match=rf"no folder {tmp_path}/models/foto .*not the name of a"):
        adopt("./models/foto")


@pytest.mark.parametrize("name", ["写实", "(v2) mine", "ünïcödé", "...", "-x", " ", "CON", ".a"])
def test_any_folder_name_is_adopted(
    models: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    folder = Path(shutil.copytree(models("sd"), tmp_path / name))
    found = adopt(str(folder)).catalog
    again = read_catalog(write_catalog(found, tmp_path / "written"))
    assert again.catalog == found
    assert again.missing() == []


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


def test_loras_find_the_text_encoder_they_are_for(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    """Of SDXL's two, in the names that most of its files have."""
    file = {}
    for number, width in ((1, families.WIDTH), (2, 24)):
        for layer, up in (("q", number), ("k", 0), ("v", 0), ("out", 0)):
            name = f"lora_te{number}_text_model_encoder_layers_0_self_attn_{layer}_proj"
            file[f"{name}.lora_down.weight"] = torch.ones(2, width)
            file[f"{name}.lora_up.weight"] = up * torch.ones(width, 2)
            file[f"{name}.alpha"] = torch.tensor(1.0)
    save_file(file, tmp_path / "lora.safetensors")
    for number, part in ((1, "text_encoder"), (2, "text_encoder_2")):
        plain = Checkpoint(models("sdxl") / part).load().state_dict()
        seen = Checkpoint(models("sdxl") / part, ((tmp_path, 1.0),)).load().state_dict()
        (name,) = [key for key in seen if key.endswith("layers.0.self_attn.q_proj.weight")]
        # Each of rank 2 at alpha 1: half of what they are together.
        assert torch.allclose(seen[name], plain[name] + number, atol=1e-5)
        others = [key for key in seen if key != name]
        assert all(torch.equal(seen[key], plain[key]) for key in others)


def test_loras_for_a_unet_as_others_name_them(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    name = "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    plain = Checkpoint(models("sd") / "unet").load().state_dict()
    key = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    width = plain[key].shape[1]
    save_file(
        {
            f"lora_unet_{name}.lora_down.weight": torch.ones(2, width),
            f"lora_unet_{name}.lora_up.weight": torch.ones(plain[key].shape[0], 2),
            f"lora_unet_{name}.alpha": torch.tensor(4.0),
        },
        tmp_path / "lora.safetensors",
    )
    seen = Checkpoint(models("sd") / "unet", ((tmp_path, 1.0),)).load().state_dict()
    assert torch.allclose(seen[key], plain[key] + 4, atol=1e-5)


@pytest.mark.parametrize("family", ["sd3", "flux dev"])
def test_loras_for_a_transformer(
    models: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    folder, layer = models(family) / "transformer", "transformer_blocks.0.attn.to_q"
    plain = Checkpoint(folder).load().state_dict()
    outputs, inputs = plain[f"{layer}.weight"].shape
    g = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, inputs, generator=g), torch.randn(outputs, 2, generator=g)
    save_file(
        {
            f"transformer.{layer}.lora_A.weight": down,
            f"transformer.{layer}.lora_B.weight": up,
        },
        tmp_path / "lora.safetensors",
    )
    seen = Checkpoint(folder, ((tmp_path, 0.5),)).load().state_dict()
    assert torch.allclose(
        seen[f"{layer}.weight"], plain[f"{layer}.weight"] + 0.5 * up @ down, atol=1e-6
    )
    assert seen.keys() == plain.keys()
    assert all(torch.equal(seen[k], plain[k]) for k in plain if k != f"{layer}.weight")


def test_loras_for_a_class_without_a_loader_in_diffusers(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, layer = models("pixart") / "transformer", "transformer_blocks.0.attn1.to_q"
    file = {
        f"transformer.{layer}.lora_A.weight": torch.ones(2, 24),
        f"transformer.{layer}.lora_B.weight": torch.ones(24, 2),
    }
    save_file(file, tmp_path / "lora.safetensors")
    plain = Checkpoint(folder).load().state_dict()
    seen = Checkpoint(folder, ((tmp_path, 1.0),)).load().state_dict()
    assert torch.allclose(seen[f"{layer}.weight"], plain[f"{layer}.weight"] + 2, atol=1e-5)


def test_loras_for_flux_as_others_name_them(models: Callable[[str], Path], tmp_path: Path) -> None:
    """Its queries, keys and values are one layer there."""
    folder = models("flux dev") / "transformer"
    plain = Checkpoint(folder).load().state_dict()
    block = "transformer_blocks.0.attn"
    outputs, inputs = plain[f"{block}.to_q.weight"].shape
    g = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, inputs, generator=g), torch.randn(3 * outputs, 2, generator=g)
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    save_file(
        {
            f"{name}.lora_down.weight": down,
            f"{name}.lora_up.weight": up,
            f"{name}.alpha": torch.tensor(1.0),
        },
        tmp_path / "lora.safetensors",
    )
    seen = Checkpoint(folder, ((tmp_path, 1.0),)).load().state_dict()
    for layer, rows in zip(("to_q", "to_k", "to_v"), up.chunk(3), strict=True):
        key = f"{block}.{layer}.weight"
        assert torch.allclose(seen[key], plain[key] + rows @ down / 2, atol=1e-6)


def test_loras_of_another_model_are_refused(models: Callable[[str], Path], tmp_path: Path) -> None:
    folder = models("sd") / "unet"
    with pytest.raises(SdpackError, match=r"expected one \.safetensors LoRA file"):
        _ = Checkpoint(folder, ((tmp_path, 1.0),)).content
    file = {
        "transformer.x.lora_A.weight": torch.ones(2, 3),
        "transformer.x.lora_B.weight": torch.ones(3, 2),
    }
    save_file(file, tmp_path / "l.safetensors")
    with pytest.raises(SdpackError, match="has no LoRA weights for a UNet2DConditionModel"):
        Checkpoint(folder, ((tmp_path, 1.0),)).load()


def test_a_catalog_in_the_model_s_own_folder_is_written_again(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models("sd"), tmp_path / "mine"))
    for steps in ("3", "5"):
        words = ["catalog", "from", str(folder), "--out", str(folder), "--steps", steps]
        ran = CliRunner().invoke(main, words)
        assert ran.exit_code == 0, ran.output
        assert f"steps: {steps}" in (folder / "catalog.yaml").read_text()
    for _ in range(2):
        ran = CliRunner().invoke(main, ["catalog", "from", str(folder), "-o", f"{folder}/my.yaml"])
        assert ran.exit_code == 0, ran.output
    (folder / "catalog.yaml").unlink()
    config = folder / "unet" / "config.json"
    (folder / "catalog.yaml").symlink_to(config)
    before = config.read_bytes()
    ran = CliRunner().invoke(main, ["catalog", "from", str(folder), "--out", str(folder)])
    assert ran.exit_code == 2
    assert "would be overwritten" in ran.stderr
    assert config.read_bytes() == before


def test_a_model_that_the_index_does_not_name_is_told_of(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models("sd"), tmp_path / "mine"))
    said: list[str] = []
    adopt(str(folder), warn=said.append)
    before = list(said)
    (folder / "controlnet").mkdir()
    (folder / "controlnet" / "config.json").write_text('{"_class_name": "ControlNetModel"}')
    said.clear()
    adopt(str(folder), warn=said.append)
    assert said == [
        *before,
        f"{folder}/model_index.json does not name controlnet/ (a ControlNet, ControlNetModel), "
        "which is left out",
    ]


def test_the_licence_is_the_one_that_the_model_s_cards_state(
    models: Callable[[str], Path], tmp_path: Path
) -> None:
    """A part may have a card of its own, such as a decoder that was put there later."""
    folder = Path(shutil.copytree(models("sd"), tmp_path / "m"))
    before = adopt(str(folder)).catalog
    assert {c.licence for c in before.decoders.values()} == {"not stated; see where it comes from"}
    (folder / "README.md").write_text("---\nlicense: openrail++\n---\n")
    (folder / "vae" / "README.md").write_text("---\nlicense: mit\n---\n")
    after = adopt(str(folder)).catalog
    assert after.text_encoders["text-encoder"].licence == "openrail++"
    assert after.denoisers["unet"].licence == "openrail++"
    assert after.decoders["vae"].licence == "mit"
