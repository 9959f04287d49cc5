"""Folders as diffusers wrote them in 2022."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sdpack.documents.conditioning import Family
from sdpack.documents.profile import find_profile
from sdpack.domain.placement import Role
from sdpack.export.adopt import adopt
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.sampler import load_scheduler, scheduler_table
from sdpack.pack.candidates import Candidates
from sdpack.pack.checks import check
from sdpack.pack.request import BuildRequest

WEIGHTS = "diffusion_pytorch_model.safetensors"
ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
UNET_KEYS = """
act_fn attention_head_dim block_out_channels center_input_sample cross_attention_dim
down_block_types downsample_padding flip_sin_to_cos freq_shift in_channels layers_per_block
mid_block_scale_factor norm_eps norm_num_groups out_channels sample_size up_block_types"""
VAE_KEYS = """
act_fn block_out_channels down_block_types in_channels latent_channels layers_per_block
norm_num_groups out_channels sample_size up_block_types"""
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def only(path: Path, keys: str) -> None:
    """Write a model's config with the keys that it had then."""
    values = json.loads(path.read_text())
    kept = {key: values[key] for key in keys.split()}
    path.write_text(json.dumps({"_class_name": values["_class_name"], **kept}))


@pytest.fixture
def old(models: Callable[[str], Path], tmp_path: Path) -> Path:
    """A Stable Diffusion pipeline with the names and keys of 2022."""
    folder = Path(shutil.copytree(models("sd"), tmp_path / "m"))
    only(folder / "unet" / "config.json", UNET_KEYS)
    only(folder / "vae" / "config.json", VAE_KEYS)
    path = folder / "vae" / WEIGHTS
    tensors = load_file(path)
    for name, former in ATTENTION.items():
        tensors = {key.replace(f".{name}.", f".{former}."): t for key, t in tensors.items()}
    assert any(".proj_attn." in key for key in tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    text = folder / "text_encoder" / "model.safetensors"
    named = {
        key if key.startswith("text_model.") else f"text_model.{key}": tensor
        for key, tensor in load_file(text).items()
    }
    positions = {"text_model.embeddings.position_ids": torch.arange(16).unsqueeze(0)}
    save_file({**named, **positions}, text, metadata={"format": "pt"})
    for name in ("safety_checker", "feature_extractor"):
        (folder / name).mkdir()
    index = folder / "model_index.json"
    checker = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    extractor = {"feature_extractor": ["transformers", "CLIPFeatureExtractor"]}
    index.write_text(json.dumps({**json.loads(index.read_text()), **checker, **extractor}))
    return folder


def test_a_folder_of_2022_is_taken_and_loads_the_same_numbers(
    old: Path, models: Callable[[str], Path]
) -> None:
    said: list[str] = []
    found = adopt(str(old), warn=said.append)
    candidates = Candidates(
        BuildRequest(find_profile("cpu-2gb"), found, old / "out", asked_sizes=((64, 64),))
    )
    check(candidates)
    assert [line.split(": ")[1].split(" is")[0] for line in said] == [
        "safety_checker",
        "feature_extractor",
    ]
    for name in ("text_encoder", "unet", "vae"):
        loaded = Checkpoint(old / name).load().state_dict()
        wanted = Checkpoint(models("sd") / name).load().state_dict()
        assert loaded.keys() == wanted.keys()
        assert all(torch.equal(loaded[key], wanted[key]) for key in wanted)
        whole = Checkpoint(models("sd") / name).parameters
        extra = 16 if name == "text_encoder" else 0  # numbers of positions, which are not weights
        assert Checkpoint(old / name).parameters == whole + extra
    assert candidates.parameters(Role.DECODER, "vae") == Checkpoint(old / "vae").parameters


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("PNDMScheduler", {"skip_prk_steps": True}),
        ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}),
        ("DDIMScheduler", {}),
        ("LMSDiscreteScheduler", {"tensor_format": "pt", "timesteps": 1000}),
    ],
)
def test_scheduler_configs_of_2022(tmp_path: Path, name: str, settings: dict[str, object]) -> None:
    values = {"_class_name": name, "_diffusers_version": "0.2.2", **BETAS, **settings}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(values))
    assert type(load_scheduler(tmp_path, Family.SD)).__name__ == name
    assert scheduler_table(tmp_path, Family.SD, 4, (8, 8), 1).steps == 4
