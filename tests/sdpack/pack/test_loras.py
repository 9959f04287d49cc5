"""LoRA weights that a catalog does not use are reported before anything is exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from safetensors.torch import save_file
from sdpack.documents.catalog import Catalog, Lora
from sdpack.documents.catalog_files import LocatedCatalog
from sdpack.documents.profile import find_profile
from sdpack.documents.source import Source
from sdpack.errors import CatalogError, SourceError
from sdpack.export.adopt import adopt
from sdpack.pack.candidates import Candidates
from sdpack.pack.checks import check
from sdpack.pack.request import BuildRequest

from tests.e2e import families

UNET = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("models") / "m"
    return adopt(str(families.write_model(folder, "sd", EulerDiscreteScheduler()))).catalog


def lora(folder: Path, *layers: str, partial: bool = False) -> Lora:
    """A LoRA file for layers of 16 by 16 weights."""
    down = {f"{layer}.lora_down.weight": torch.ones(2, 16) for layer in layers}
    up = {f"{layer}.lora_up.weight": torch.ones(16, 2) for layer in layers}
    save_file({**down, **up}, folder / "lora.safetensors")
    source = Source(path=folder / "lora.safetensors")
    return Lora(source=source, licence="none", partial=partial)


def with_loras(catalog: Catalog, unet: list[Lora], text: list[Lora]) -> LocatedCatalog:
    denoisers = {n: c.model_copy(update={"loras": unet}) for n, c in catalog.denoisers.items()}
    encoders = {n: c.model_copy(update={"loras": text}) for n, c in catalog.text_encoders.items()}
    changed = catalog.model_copy(update={"denoisers": denoisers, "text_encoders": encoders})
    return LocatedCatalog(changed, Path())


def checked(located: LocatedCatalog, folder: Path) -> None:
    out, profile = folder / "out", find_profile("cpu-2gb")
    check(Candidates(BuildRequest(profile, located, out, asked_sizes=((64, 64),))))


def test_weights_for_a_part_that_does_not_list_the_file_are_reported(
    catalog: Catalog, tmp_path: Path
) -> None:
    both = lora(tmp_path, UNET, TEXT)
    checked(with_loras(catalog, [both], [both]), tmp_path)
    with pytest.raises(CatalogError, match=rf"weights for text_encoder \({TEXT}\.lora_down"):
        checked(with_loras(catalog, [both], []), tmp_path)
    with pytest.raises(CatalogError, match=rf"weights for denoiser \({UNET}\.lora_down"):
        checked(with_loras(catalog, [], [both]), tmp_path)
    partial = lora(tmp_path, UNET, TEXT, partial=True)
    checked(with_loras(catalog, [partial], []), tmp_path)


def test_a_file_that_does_not_fit_is_refused_before_the_export(
    catalog: Catalog, tmp_path: Path
) -> None:
    unfit = lora(tmp_path, UNET, "lora_unet_nowhere")
    with pytest.raises(SourceError, match="has no layer for lora_unet_nowhere"):
        checked(with_loras(catalog, [unfit], []), tmp_path)
    assert not (tmp_path / "out").exists()
