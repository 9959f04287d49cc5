from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from sdpack.documents.catalog_files import (
    builtin_catalogs,
    find_catalog,
    read_catalog,
)
from sdpack.domain.placement import Role
from sdpack.errors import CatalogError

COMMIT = "0123456789" * 4


def values() -> dict[str, Any]:
    part = {"source": {"path": "x"}, "licence": "MIT"}
    return {
        "schema": 1,
        "name": "tiny",
        "image_size": 64,
        "text_encoders": {"e": {**part, "tokenizer": {"path": "t"}}},
        "denoisers": {"d": {**part, "latents": "a"}},
        "decoders": {"v": {**part, "latents": "a"}},
        "bridges": [
            {"text_encoder": "e", "denoiser": "d", "source": {"path": "b"}, "licence": "MIT"}
        ],
        "sampling": {"scheduler": {"path": "s"}, "steps": 4, "guidance_scale": 2},
        "quality": {
            "judge": {"path": "j"},
            "tokenizer": {"path": "t"},
            "prompts": "p.jsonl",
            "calibration": "c.jsonl",
            "samples": "s.jsonl",
            "real_images": "r.png",
        },
    }


def written(folder: Path, catalog: Any) -> Path:
    path = folder / "catalog.yaml"
    path.write_text(yaml.safe_dump(catalog, sort_keys=False))
    return path


def changed(key: str, value: Any) -> dict[str, Any]:
    catalog = copy.deepcopy(values())
    place = catalog
    *path, last = key.split(".")
    for step in path:
        place = place[step]
    place[last] = value
    return catalog


def test_shared_states_need_no_bridge(tmp_path: Path) -> None:
    catalog = changed("bridges", [])
    catalog["text_encoders"]["e"]["states"] = "clip-l"
    catalog["denoisers"]["d"]["states"] = "clip-l"
    (mix,) = read_catalog(written(tmp_path, catalog)).catalog.mixable()
    assert not mix.bridges


def test_parts_of_other_latents_never_meet(tmp_path: Path) -> None:
    catalog = values()
    catalog["decoders"]["w"] = {**catalog["decoders"]["v"], "latents": "b"}
    read = read_catalog(written(tmp_path, catalog)).catalog
    assert [mix.decoder for mix in read.mixable()] == ["v"]
    assert [(group, name) for group, name, _ in read.unused()] == [("decoders", "w")]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("bridges", [], "no candidates work together"),
        ("denoisers.d.latents", "b", "no candidates work together"),
        ("bridges.0.denoiser", "x", "unknown denoiser 'x'"),
        ("denoisers.d.source", {}, "either path or hub"),
        ("denoisers.d.source", {"hub": "a/b", "revision": "main"}, "revision"),
        ("denoisers.d.source", {"path": "x", "revision": COMMIT}, "belong to hub"),
        ("denoisers.d.weights", 3, "denoisers.d.weights: unknown key"),
        ("denoisers", {}, "denoisers"),
        ("image_size", 0, "image_size"),
        ("sampling.steps", 0, "sampling.steps"),
        ("sampling.guidance_scale", -1, "sampling.guidance_scale"),
        ("denoisers", {"a/b": values()["denoisers"]["d"]}, "'a/b' is not a valid name"),
    ],
)
def test_a_broken_rule_names_its_key(tmp_path: Path, key: str, value: Any, said: str) -> None:
    catalog = values()
    if key == "bridges.0.denoiser":
        catalog["bridges"][0]["denoiser"] = value
    else:
        catalog = changed(key, value)
    path = written(tmp_path, catalog)
    with pytest.raises(CatalogError) as caught:
        read_catalog(path)
    assert said in str(caught.value)
    assert f"{path}, line " in str(caught.value)


def test_two_bridges_for_one_pair_are_refused(tmp_path: Path) -> None:
    catalog = changed("bridges", values()["bridges"] * 2)
    with pytest.raises(CatalogError, match="e and d have more than one"):
        read_catalog(written(tmp_path, catalog))


def test_a_pinned_hub_source(tmp_path: Path) -> None:
    source = {"hub": "o/r", "revision": COMMIT, "subfolder": "unet"}
    read = read_catalog(written(tmp_path, changed("denoisers.d.source", source)))
    assert str(read.catalog.denoisers["d"].source) == "o/r@012345678901/unet"
    assert "denoisers.d" not in dict(read.local_files())


def several(**changes: Any) -> dict[str, Any]:
    """Two encoders a denoiser hears together, one of which it can do without."""
    catalog = values()
    part = catalog["text_encoders"]["e"]
    catalog["text_encoders"] = {
        "clip": {**part, "states": "c"},
        "t5": {**part, "states": "t"},
        "small": part,
    }
    catalog["denoisers"]["d"] |= {"states": ["c", "t"], "droppable": ["t"], **changes}
    catalog["bridges"] = []
    return catalog


def test_a_denoiser_hears_one_encoder_for_each_of_its_states(tmp_path: Path) -> None:
    mixes = list(read_catalog(written(tmp_path, several())).catalog.mixable())
    assert [dict(mix.names) for mix in mixes] == [
        {
            Role.TEXT_ENCODER: "clip",
            Role.TEXT_ENCODER_2: "t5",
            Role.DENOISER: "d",
            Role.DECODER: "v",
        },
        {Role.TEXT_ENCODER: "clip", Role.DENOISER: "d", Role.DECODER: "v"},
    ]


def test_a_bridge_stands_in_for_one_of_several(tmp_path: Path) -> None:
    catalog = several(droppable=[])
    unbridged = read_catalog(written(tmp_path, catalog)).catalog
    reasons = {name: why for _, name, why in unbridged.unused()}
    assert "no bridge starts from it" in reasons["small"]
    bridge = {"text_encoder": "small", "denoiser": "d", "role": "text_encoder_2"}
    catalog["bridges"] = [{**bridge, "source": {"path": "b"}, "licence": "MIT"}]
    mixes = list(read_catalog(written(tmp_path, catalog)).catalog.mixable())
    assert {mix.names[Role.TEXT_ENCODER_2] for mix in mixes} == {"t5", "small"}
    assert {mix.partner(Role.TEXT_ENCODER_2) for mix in mixes} == {None, "d"}
    assert all(mix.partner(Role.TEXT_ENCODER) is None for mix in mixes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"states": list("abcd")}, "at most 3 text encoders"),
        ({"droppable": ["x"]}, "'x' is not one of its states"),
        ({"droppable": ["c", "t"]}, "one text encoder must stay"),
    ],
)
def test_states_that_make_no_sense(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CatalogError, match=said):
        read_catalog(written(tmp_path, several(**changes)))


def test_without_a_judge_only_likes_are_compared(tmp_path: Path) -> None:
    quality = dict.fromkeys(("prompts", "calibration", "samples"), "p.jsonl")
    alone = {**values(), "quality": quality}
    assert read_catalog(written(tmp_path, alone)).catalog.quality.judge is None
    alone["denoisers"] = {"d": values()["denoisers"]["d"], "other": values()["denoisers"]["d"]}
    alone["bridges"] = [{**values()["bridges"][0], "denoiser": name} for name in ("d", "other")]
    with pytest.raises(CatalogError, match=r"2 candidates \(d, other\); give a judge"):
        read_catalog(written(tmp_path, alone))
    with pytest.raises(CatalogError, match="with and without 't' cannot be compared"):
        read_catalog(written(tmp_path, {**several(), "quality": quality}))
    with pytest.raises(CatalogError, match="judge and tokenizer belong together"):
        read_catalog(
            written(tmp_path, {**values(), "quality": {**quality, "judge": {"path": "j"}}})
        )


def test_a_denoiser_may_be_run_in_its_own_way(tmp_path: Path) -> None:
    own = {"scheduler": {"path": "lcm"}, "steps": 4, "guidance_scale": 1.5}
    read = read_catalog(written(tmp_path, changed("denoisers.d.sampling", own)))
    assert read.catalog.sampling_of("d").steps == (4,)
    assert "denoisers.d.sampling.scheduler" in dict(read.missing())
    plain = read_catalog(written(tmp_path, values()))
    assert plain.catalog.sampling_of("d") == plain.catalog.sampling


def test_the_built_in_catalogs_are_pinned_and_offer_every_denoiser() -> None:
    found = {located.catalog.name: located for located in builtin_catalogs()}
    names = {"flux", "pixart", "sd15", "sd21", "sd3", "sdxl"}
    unpinned = {"lumina2", "qwen-image", "sana-sprint"}  # no revision of theirs is known
    assert set(found) == names | unpinned | {"chroma", "flux2-klein", "sana", "z-image"}
    for located in found.values():
        mixes = list(located.catalog.mixable())
        assert {mix.denoiser for mix in mixes} == set(located.catalog.denoisers)
        assert {mix.decoder for mix in mixes} == set(located.catalog.decoders)
        assert located.missing() == []
        for key, source in located.sources():
            assert source.hub is not None, key
            is_judge = key.startswith("quality.")
            assert source.revision is not None or (located.catalog.name in unpinned), key
            assert source.revision is not None or not is_judge, key
        assert len(located.prompts(located.catalog.quality.prompts)) == 480
    dropped = [m for m in found["sd3"].catalog.mixable() if Role.TEXT_ENCODER_3 not in m.names]
    assert dropped, "T5 can be left out"
    waiting = {name for _, name, _ in found["pixart"].catalog.unused()}
    assert {"t5-small", "t5-base", "t5-large", "bert-base"} <= waiting, "these wait for a bridge"


def test_parameters_are_those_of_the_classes() -> None:
    """What files hold: an autoencoder's decoding half, a transformer with its table of places."""
    torch = pytest.importorskip("torch")
    from diffusers import (
        AutoencoderKL,
        AutoencoderTiny,
        PixArtTransformer2DModel,
        SD3Transformer2DModel,
        UNet2DConditionModel,
    )
    from transformers import BertConfig, BertModel

    plain = {
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    wide = {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
    medium = {
        "sample_size": 128,
        "num_layers": 24,
        "num_attention_heads": 24,
        "caption_projection_dim": 1536,
        "out_channels": 16,
    }
    dual = {"dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm"}
    widths = {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768}
    short = {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("CrossAttnDownBlock2D",) * 3,
        "up_block_types": ("CrossAttnUpBlock2D",) * 3,
        "layers_per_block": 1,
        "mid_block_type": None,
        "cross_attention_dim": 768,
    }
    broad_unet = {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "cross_attention_dim": 2048,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    # What is left of SDXL's transformer layers, going down and going up.
    distilled: dict[str, dict[str, Any]] = {
        "sdxl": {"transformer_layers_per_block": (1, 2, 10)},
        "ssd-1b": {
            "transformer_layers_per_block": (1, (2, 2), (4, 4)),
            "reverse_transformer_layers_per_block": ((4, 4, 10), (2, 1, 1), 1),
            "mid_block_type": "UNetMidBlock2D",
        },
        "vega": {
            "transformer_layers_per_block": (1, (1, 1), (2, 2)),
            "reverse_transformer_layers_per_block": ((2, 2, 2), (1, 1, 1), 1),
            "mid_block_type": "UNetMidBlock2D",
        },
        "koala-700m": {
            "transformer_layers_per_block": (1, 2, 5),
            "layers_per_block": 1,
            "mid_block_type": None,
        },
        "koala-1b": {"transformer_layers_per_block": (1, 2, 6), "layers_per_block": 1},
    }
    with torch.device("meta"):
        bert = BertModel(BertConfig())
        denoisers = {
            ("sd15", "sd15"): UNet2DConditionModel(**widths),
            ("sd15", "tiny-sd"): UNet2DConditionModel(**short),
            ("sd15", "bk-sdm-tiny"): UNet2DConditionModel(**short),
            ("sd15", "lcm-dreamshaper"): UNet2DConditionModel(**widths, time_cond_proj_dim=256),
            **{
                ("sdxl", name): UNet2DConditionModel(**broad_unet, **layers)
                for name, layers in distilled.items()
            },
            **{
                ("pixart", name): PixArtTransformer2DModel(sample_size=64, caption_channels=4096)
                for name in ("sigma-512", "alpha-512")
            },
            ("sd3", "sd3-medium"): SD3Transformer2DModel(**medium, pos_embed_max_size=192),
            ("sd3", "sd3.5-medium"): SD3Transformer2DModel(
                **medium, **dual, pos_embed_max_size=384
            ),
        }
        narrow, broad = AutoencoderKL(**plain), AutoencoderKL(**plain, **wide)
        tiny, tiny_broad = AutoencoderTiny(), AutoencoderTiny(latent_channels=16)
    halves = {
        ("sd15", "ft-mse"): (narrow.decoder, narrow.post_quant_conv),
        ("sdxl", "sdxl"): (narrow.decoder, narrow.post_quant_conv),
        ("sd3", "sd3"): (broad.decoder,),
        ("flux", "flux"): (broad.decoder,),
        ("sd15", "taesd"): (tiny.decoder,),
        ("sdxl", "taesdxl"): (tiny.decoder,),
        ("sd3", "taesd3"): (tiny_broad.decoder,),
        ("flux", "taef1"): (tiny_broad.decoder,),
    }

    def held(*modules: Any) -> int:
        return sum(tensor.numel() for module in modules for tensor in module.state_dict().values())

    for (name, key), module in denoisers.items():
        assert find_catalog(name).catalog.denoisers[key].parameters == held(module), key
    for (name, key), modules in halves.items():
        assert find_catalog(name).catalog.decoders[key].parameters == held(*modules), key
    encoder = find_catalog("pixart").catalog.text_encoders["bert-base"]
    assert encoder.parameters == sum(parameter.numel() for parameter in bert.parameters())


def test_without_a_judge_numbers_of_steps_cannot_be_compared(tmp_path: Path) -> None:
    values = changed("sampling.steps", [4, 8])
    for key in ("judge", "tokenizer", "real_images", "real_columns"):
        values["quality"].pop(key, None)
    with pytest.raises(CatalogError, match="in 4 and in 8 steps cannot be compared"):
        read_catalog(written(tmp_path, values))
