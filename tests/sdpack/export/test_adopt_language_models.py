"""Catalogs of models whose text encoders are language models."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from sdpack.documents.catalog import Catalog
from sdpack.documents.catalog_files import LocatedCatalog
from sdpack.documents.profile import find_profile
from sdpack.documents.source import Source
from sdpack.domain.placement import Role
from sdpack.export.adopt import adopt
from sdpack.export.source import names_to_fetch
from sdpack.pack.candidates import Candidates
from sdpack.pack.request import BuildRequest

from tests.e2e import language_families


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The folder of a family's model, under a name."""

    @cache
    def make(family: str, name: str) -> Path:
        folder = tmp_path_factory.mktemp("models") / name
        language_families.write_model(folder, family, FlowMatchEulerDiscreteScheduler())
        return folder

    return make


@pytest.mark.parametrize(
    ("name", "steps", "scale"), [("Z-Image-Turbo", 8, 0.0), ("my-z-image", 50, 5.0)]
)
def test_turbo_is_told_by_its_name_and_said_aloud(
    model: Callable[[str, str], Path], name: str, steps: int, scale: float
) -> None:
    said: list[str] = []
    sampling = adopt(str(model("z-image", name)), warn=said.append).catalog.sampling
    assert (sampling.most_steps, sampling.guidance_scale) == (steps, scale)
    assert any(f"{steps} steps, guidance scale {scale:g}" in line for line in said)


def test_a_distilled_klein_draws_without_guidance(
    model: Callable[[str, str], Path],
) -> None:
    folder = model("klein", "klein")
    index = folder / "model_index.json"
    plain = json.loads(index.read_text())
    assert not adopt(str(folder)).catalog.sampling.distilled
    index.write_text(json.dumps({**plain, "is_distilled": True}))
    sampling = adopt(str(folder)).catalog.sampling
    assert sampling.distilled
    assert (sampling.most_steps, sampling.guidance_scale) == (4, 1.0)
    index.write_text(json.dumps(plain))


def test_a_chat_template_in_a_file_of_its_own_is_fetched() -> None:
    names = ["tokenizer/tokenizer.json", "tokenizer/chat_template.jinja", "tokenizer/notes.md"]
    source = Source(hub="o/r", revision="a" * 40, subfolder="tokenizer")
    assert names_to_fetch(names, source) == names[:2]


def test_an_encoder_is_cut_once_its_denoiser_is_here(
    model: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """Its denoiser may be fetched after it."""
    folder = model("z-image", "z")
    catalog = adopt(str(folder)).catalog
    later = tmp_path / "transformer"
    values = catalog.model_dump(mode="json", by_alias=True)
    values["denoisers"]["transformer"]["source"] = {"path": str(later)}
    located = LocatedCatalog(Catalog.model_validate(values), Path())
    candidates = Candidates(BuildRequest(find_profile("cpu-2gb"), located, tmp_path / "out"))
    assert candidates.checkpoint(Role.TEXT_ENCODER, "text-encoder").layers is None
    later.symlink_to(folder / "transformer")
    assert candidates.checkpoint(Role.TEXT_ENCODER, "text-encoder").layers == 3
