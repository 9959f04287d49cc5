from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sdpack.errors import SourceError
from sdpack.export.single_file import plan as planning
from sdpack.export.single_file.content import OriginalFile
from sdpack.export.single_file.options import FileOptions, Prediction
from sdpack.export.single_file.plan import FilePlan, plan_of

from tests.sdpack.export.single_file import originals
from tests.sdpack.export.single_file.tiny_models import Tiny, index_of

Model = Callable[[str], Tiny]


def planned(path: Path, folder: Path, **more: object) -> FilePlan:
    return plan_of(OriginalFile(path), FileOptions(folder=folder, **more))  # type: ignore[arg-type]


def part(tiny: Tiny, prefix: str, path: Path) -> Path:
    """A file with some of the tensors of another."""
    tensors = load_file(tiny.file)
    return originals.write({n: t for n, t in tensors.items() if n.startswith(prefix)}, path)


def test_a_whole_file_needs_only_tokenizers(tiny: Model) -> None:
    model = tiny("sdxl")
    plan = planned(model.file, model.configs)
    assert plan.texts == {
        "text_encoder": "conditioner.embedders.0.",
        "text_encoder_2": "conditioner.embedders.1.",
    }
    assert plan.vae == ("first_stage_model.",)
    assert plan.linked.keys() == {"tokenizer", "tokenizer_2"}
    (line,) = plan.lines
    assert line == f"{model.file}: laid out as {model.configs}; prediction epsilon (by its configs)"


def test_parts_that_a_file_lacks_are_taken_from_a_folder(tiny: Model, tmp_path: Path) -> None:
    model = tiny("flux")
    path = part(model, originals.DENOISER, tmp_path / "flux.safetensors")
    plan = planned(path, model.folder)
    parts = {"vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"}
    assert plan.linked == {name: model.folder / name for name in parts}
    assert plan.layout.components == planned(model.file, model.folder).layout.components


@pytest.mark.parametrize(
    ("absent", "words"),
    [
        ("vae", r"lacks vae, as does .*folder that has it; or --vae FILE$"),
        ("text_encoder", r"lacks text_encoder, as does .* give --with FOLDER, .* has it$"),
        ("text_encoder_2", r"lacks text_encoder_2, as does .* give --with FOLDER, .* has it$"),
        ("tokenizer", r"lacks tokenizer, .*; CLIP's tokenizer also comes with `pip install"),
        ("tokenizer_2", r"lacks tokenizer_2, as does .* give --with FOLDER, .* has it$"),
    ],
)
def test_a_missing_part_is_named_and_how_to_give_it(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str, words: str
) -> None:
    monkeypatch.setattr(planning, "find_vocabulary", lambda: None)
    model = tiny("flux")
    folder = Path(shutil.copytree(model.folder, tmp_path / "folder"))
    shutil.rmtree(folder / absent)
    path = part(model, originals.DENOISER, tmp_path / "flux.safetensors")
    with pytest.raises(SourceError, match=words) as caught:
        planned(path, folder)
    assert "\n" not in str(caught.value)


def test_a_file_beside_it_that_does_not_exist_is_named(tiny: Model, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.safetensors"
    for more in ({"vae": nowhere}, {"embeddings": (nowhere,)}):
        with pytest.raises(SourceError, match=f"{nowhere}: there is no such file"):
            planned(tiny("sd1").file, tiny("sd1").configs, **more)


def test_all_missing_parts_are_named_at_once(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "find_vocabulary", lambda: None)
    model = tiny("flux")
    index = tmp_path / "configs"
    index.mkdir()
    for name in ("model_index.json", "transformer", "scheduler"):
        source = model.configs / name
        copy = shutil.copy if source.is_file() else shutil.copytree
        copy(source, index / name)
    path = part(model, originals.DENOISER, tmp_path / "flux.safetensors")
    wanted = "lacks vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2, as does"
    with pytest.raises(SourceError, match=wanted):
        planned(path, index)


def test_the_t5_of_stable_diffusion_3_is_left_out_and_that_is_said(
    tiny: Model, tmp_path: Path
) -> None:
    model = tiny("sd3")
    folder = Path(shutil.copytree(model.configs, tmp_path / "folder"))
    shutil.rmtree(folder / "text_encoder_3")
    tensors = {n: t for n, t in load_file(model.file).items() if "t5xxl" not in n}
    path = originals.write(tensors, tmp_path / "sd3.safetensors")
    plan = planned(path, folder)
    assert plan.layout.text_encoders == ("text_encoder", "text_encoder_2")
    assert "text_encoder_3 is left out, as the file does not hold it" in plan.lines[-1]
    assert planned(path, model.configs).layout.text_encoders == ("text_encoder", "text_encoder_2")
    assert "text_encoder_3" in planned(path, model.folder).linked


def test_a_text_encoder_that_the_layout_lacks_is_left_out_and_that_is_said(
    tiny: Model, tmp_path: Path
) -> None:
    model = tiny("sd3")
    folder = Path(shutil.copytree(model.configs, tmp_path / "folder"))
    index = index_of(folder) | {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    plan = planned(model.file, folder)
    assert plan.texts.keys() == {"text_encoder", "text_encoder_2"}
    assert "text_encoders.t5xxl.* is left out" in plan.lines[-1]


def test_tokenizers_beside_the_file_and_clips_vocabulary_are_used(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("sdxl")
    folder = Path(shutil.copytree(model.configs, tmp_path / "folder"))
    for name in ("vocab.json", "merges.txt"):
        (folder / "tokenizer" / name).unlink()
        (folder / "tokenizer_2" / name).unlink()
    path = Path(shutil.copy(model.file, tmp_path))
    vocabulary = tmp_path / "vocabulary.gz"
    vocabulary.touch()
    monkeypatch.setattr(planning, "find_vocabulary", lambda: vocabulary)
    shutil.copytree(model.configs / "tokenizer", tmp_path / "tokenizer")
    plan = planned(path, folder)
    assert plan.linked == {"tokenizer": tmp_path / "tokenizer"}
    assert (plan.spelled, plan.vocabulary) == (("tokenizer_2",), vocabulary)


def test_a_vae_beside_it_takes_the_place_of_the_files_own(tiny: Model, tmp_path: Path) -> None:
    model = tiny("sd1")
    folder = model.folder / "vae"
    bare = originals.write(originals.own_vae(model.folder), tmp_path / "vae.safetensors")
    plan = planned(model.file, model.configs, vae=bare)
    assert (plan.vae, plan.vae_file) == ((), OriginalFile(bare))
    whole = planned(model.file, model.configs, vae=tiny("sd2").file)
    assert whole.vae == ("first_stage_model.",)
    with pytest.raises(SourceError, match=r"vae has no config.json with .safetensors weights"):
        planned(model.file, model.configs, vae=model.configs / "vae")
    linked = planned(model.file, model.configs, vae=folder)
    assert linked.linked["vae"] == folder
    assert "vae" not in linked.layout.configs


def test_averages_of_the_training_are_left_out_and_that_is_said(
    tiny: Model, tmp_path: Path
) -> None:
    tensors = {**load_file(tiny("sd1").file), "model_ema.a": torch.ones(1)}
    path = originals.write(tensors, tmp_path / "a.safetensors")
    plan = planned(path, tiny("sd1").configs)
    assert plan.lines[-1] == f"{path}: 1 averages of the training (EMA) are left out"


def test_a_plan_depends_on_all_that_it_is_made_from(tiny: Model, tmp_path: Path) -> None:
    model = tiny("sd1")
    vae = originals.write(originals.own_vae(model.folder), tmp_path / "vae.safetensors")
    whole = planned(model.file, model.configs)
    assert planned(model.file, model.configs).inputs == whole.inputs
    others = [
        planned(model.file, model.configs, prediction=Prediction.V),
        planned(model.file, model.configs, vae=vae),
        planned(model.file, model.configs, embeddings=(vae,)),
        planned(tiny("sd2").file, model.configs),
    ]
    inputs = [str(plan.inputs) for plan in (whole, *others)]
    assert len(set(inputs)) == len(inputs)
