"""The main job from a catalog of tiny parts to pictures, through the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from sdpack.cli.inspect import _layers
from sdpack.cli.main import main
from sdpack.documents.bundle import open_bundle
from sdpack.documents.profile import profiles_folder
from sdpack.domain.licences import licence_line
from sdpack.domain.placement import Role
from sdpack.evaluate.resnet_judge import ResnetConfig, ResnetJudge
from sdpack.memory.work import graph_work
from sdpack.pack.forecast import stage_clock
from sdpack.pack.forecast.stages import KIND, Stage
from sdpack.pack.planning.footprints import CUDA_SESSION_BYTES, graph_bindings
from sdpack.runtime.bundle import pipeline, request
from sdpack.runtime.pipeline import Noise
from sdpack.store.ledger import Ledger, read_rows
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from tests.e2e import tiny

PROMPTS = ["noto, pizza", "twemoji, red heart"]
SEEDS = [3, 4]


def profile(folder: Path, base: str, precisions: list[str], **changes: str) -> Path:
    values = yaml.safe_load((profiles_folder() / f"{base}.yaml").read_text())
    path = folder / f"{'-'.join([base, *precisions, *changes.values()])}.yaml"
    path.write_text(yaml.safe_dump({**values, "precisions": precisions, **changes}))
    return path


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("e2e")
    tiny.write_catalog(folder / "catalog")
    return folder


def run(work: Path, *words: str) -> Result:
    return CliRunner(env={"SDPACK_CACHE": str(work / "cache")}).invoke(main, words)


def build(
    work: Path, base: str, precisions: list[str], out: str, *more: str, **changes: str
) -> Any:
    words = ("build", "--profile", str(profile(work, base, precisions, **changes)))
    where = ("--catalog", str(work / "catalog"), "--out", str(work / out))
    result = run(work, *words, *where, "--json", *more)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def whole(work: Path) -> Path:
    """A bundle in fp32, the only precision its profile allows."""
    manifest = build(work, "cpu-2gb", ["fp32"], "whole")
    assert manifest["evidence"]["mixes"] == 1
    return work / "whole"


def test_the_bundle_draws_what_diffusers_draws(work: Path, whole: Path) -> None:
    manifest = open_bundle(whole)
    drawn = pipeline(whole, manifest).draw(request(manifest, PROMPTS, SEEDS))
    parts = work / "catalog"
    reference = StableDiffusionPipeline(
        tiny.decoder().from_pretrained(parts / "vae"),
        CLIPTextModel.from_pretrained(parts / "text"),
        PreTrainedTokenizerFast.from_pretrained(parts / "tokenizer"),
        tiny.denoiser().from_pretrained(parts / "unet"),
        tiny.scheduler().from_pretrained(parts / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    reference.set_progress_bar_config(disable=True)
    wanted = reference(
        PROMPTS,
        latents=torch.from_numpy(Noise(SEEDS, (4, 8, 8)).draw()),
        num_inference_steps=tiny.STEPS,
        guidance_scale=tiny.GUIDANCE_SCALE,
        output_type="np",
    ).images
    assert np.abs(drawn / 255 - wanted).max() <= 2 / 255
    assert np.abs(drawn[0].astype(int) - drawn[1]).max() > 10


def test_the_operations_of_a_graph_are_those_that_torch_counts(work: Path, whole: Path) -> None:
    unet = tiny.denoiser().from_pretrained(work / "catalog" / "unet")
    unet.set_attn_processor(AttnProcessor())  # torch does not count fused attention
    sample, states = torch.randn(2, 4, 8, 8), torch.randn(2, 16, unet.config.cross_attention_dim)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        unet(sample, encoder_hidden_states=states, timestep=torch.tensor([500]))
    shapes = {"sample": sample.shape, "encoder_hidden_states": states.shape, "timestep": (1,)}
    model = ir.load(whole / "onnx" / "unet" / "model.onnx")
    counted = graph_work(model, graph_bindings(model, shapes))
    assert sum(node.macs for node in counted) == counter.get_total_flops() / 2


def test_steps_are_chosen_within_a_limit_on_the_time_of_an_image(work: Path, whole: Path) -> None:
    catalog = yaml.safe_load((work / "catalog" / "catalog.yaml").read_text())
    catalog["sampling"]["steps"] = [2, 3]
    several = work / "catalog" / "steps.yaml"
    several.write_text(yaml.safe_dump(catalog))
    words = ("--catalog", str(several), "--max-seconds", "600", "--images", "2")
    manifest = build(work, "cpu-2gb", ["fp32"], "steps", *words)
    evidence = manifest["evidence"]
    assert evidence["mixes"] == 2
    assert {each["mix"].split(" in ")[1] for each in evidence["standings"]} == {
        "2 steps",
        "3 steps",
    }
    limit, winner = evidence["latency_limit"], evidence["standings"][0]
    assert (limit["max_seconds"], limit["is_measured"], limit["left_out"]) == (600, True, 0)
    assert 0 < winner["expected_s"] < 600
    assert winner["mix"].endswith(f" in {manifest['sampling']['steps']} steps")
    table = json.loads((work / "steps" / "sampler.json").read_text())
    assert table["steps"] == manifest["sampling"]["steps"]
    where = ("--catalog", str(several), "--out", str(work / "slow"), "--images", "2")
    slow = run(
        work,
        "build",
        "--profile",
        str(profile(work, "cpu-2gb", ["fp32"])),
        *where,
        "--max-seconds",
        "0.0000001",
    )
    assert slow.exit_code == 2
    assert "no mix draws an image within 1e-07 s" in slow.output
    assert not (work / "slow").exists()


def test_a_time_limit_ends_a_build_with_the_best_bundle_so_far(work: Path, whole: Path) -> None:
    words = (work, "cpu-2gb", ["fp32", "w8"], "timed", "--images", "2")
    late = build(*words, "--within", "0.1s")["evidence"]
    assert late["time_limit"]["left_out"] == ["other precisions", "mixed variants"]
    assert [each["mix"] for each in late["standings"]] == ["e/fp32 + d/fp32 + v/fp32"]
    shown = run(work, "inspect", str(work / "timed"))
    assert "Left out: other precisions, mixed variants" in " ".join(shown.output.split())
    in_time = build(*words, "--within", "1h")["evidence"]
    assert in_time["time_limit"] == {"seconds": 3600, "is_complete": True, "left_out": []}
    assert in_time["mixes"] > late["mixes"] == 1
    assert build(*words)["evidence"] == in_time  # a complete build is recognised


def test_a_bundle_runs_where_there_is_no_torch(work: Path, whole: Path) -> None:
    script = (
        "import sys\n"
        "for name in ('torch', 'diffusers', 'transformers', 'onnx', 'optimum', 'scipy'):\n"
        "    sys.modules[name] = None\n"
        "from sdpack.cli.main import main\n"
        "main()\n"
    )
    words = ["run", str(whole), *PROMPTS, "--seed", "3", "--out", str(work / "drawn"), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    manifest = open_bundle(whole)
    wanted = pipeline(whole, manifest).draw(request(manifest, PROMPTS, SEEDS))
    files = [one["file"] for one in json.loads(done.stdout)["pictures"]]
    for file, picture in zip(files, wanted, strict=True):
        drawn = np.asarray(Image.open(file))
        assert np.abs(drawn.astype(int) - picture).max() <= 2


def test_a_second_build_makes_nothing_and_gives_the_same_bundle(work: Path, whole: Path) -> None:
    before = (whole / "manifest.json").read_bytes()
    kept = {p: p.stat().st_mtime_ns for p in (work / "cache" / "store").rglob("model.onnx")}
    build(work, "cpu-2gb", ["fp32"], "whole")
    after = {p: p.stat().st_mtime_ns for p in (work / "cache" / "store").rglob("model.onnx")}
    assert after == kept
    said, was = json.loads((whole / "manifest.json").read_bytes()), json.loads(before)
    assert said["files"] == was["files"]


def test_a_bundle_carries_what_it_was_chosen_by(work: Path, whole: Path) -> None:
    manifest = open_bundle(whole)
    assert {"ledger.jsonl", "contact.png", "samples.png"} < manifest.files.keys()
    assert not {"report.html", "charts/memory.png"} & manifest.files.keys()
    assert (whole / "charts" / "memory.png").is_file()
    moved = work / "moved"
    shutil.copytree(whole, moved)
    (moved / "report.html").unlink()
    told = run(work, "report", str(moved), "--json")
    assert told.exit_code == 0, told.output
    (point,) = json.loads(told.stdout)["mixes"]
    quality = manifest.evidence.quality
    assert point["quality"] == pytest.approx(quality.value)
    assert point["pictures"] == quality.pictures
    assert point["peak_mib"] * 2**20 == manifest.memory.predicted_bytes
    assert (moved / "report.html").is_file()
    words = ("compare", str(whole), str(moved), "--out", str(work / "compare.html"), "--json")
    compared = json.loads(run(work, *words).stdout)
    assert compared["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert compared["prompts"] == quality.pictures


def test_a_race_between_precisions(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_clock, "LEAST_S", 0.0)
    manifest = build(work, "cpu-2gb", ["fp32", "int8", "w8", "w4"], "raced")
    evidence = manifest["evidence"]
    standings = evidence["standings"]
    assert standings[0]["outcome"] == "won"
    # The decoder's weights are all too small to quantize: its four graphs are one.
    assert len({s["mix"] for s in standings}) == evidence["mixes"] == 4 * 4 * 1
    assert evidence["screening"] is None
    assert all(s["latency_s"] > 0 for s in standings[:10])
    sizes = {s["mix"]: s["size_bytes"] for s in standings}
    assert sizes[standings[0]["mix"]] <= sizes["e/fp32 + d/fp32 + v/fp32"]
    assert (evidence["rule"]["prefer"], evidence["rule"]["prompts"]) == ("quality", 8)
    assert all(s["low"] <= 0 for s in standings)  # none was shown to draw better
    told = json.loads(run(work, "report", str(work / "raced"), "--json").stdout)["mixes"]
    intervals = {
        row["mix"]: (row["low"] - row["quality"], row["high"] - row["quality"]) for row in told
    }
    for each in standings[1:]:  # the report prints the interval that decided the race
        bounds = (each["low"] - each["difference"], each["high"] - each["difference"])
        assert intervals[each["mix"]] == pytest.approx(bounds)
    basis = evidence["rule"]["basis"]
    assert basis == "shown equal" or all(s["difference"] <= 0 for s in standings)
    ledger = Ledger(work / "cache" / "ledger.sqlite")
    (stages,) = [
        row.value for row in ledger.measurements(KIND) if str(row.inputs["build"]).endswith("raced")
    ]
    ledger.close()
    timed = {Stage.CALIBRATE, Stage.SENSITIVITY, Stage.ROUND, Stage.DRAW}
    assert timed <= set(stages), "the clock does not know what these stages say"
    small = build(work, "cpu-2gb", ["fp32", "int8", "w8", "w4"], "small", "--prefer", "memory")
    assert small["evidence"]["rule"]["prefer"] == "memory"
    assert sizes[small["evidence"]["standings"][0]["mix"]] <= sizes[standings[0]["mix"]]


def judges_beside(catalog: Path) -> Path:
    """The catalog with a second judge, a reader, and a judge that scores everything alike.

    Its prompts are the same, so that their images are known; half of them count more.
    """
    values = tiny.catalog()
    torch.manual_seed(1)
    second = ResnetJudge(ResnetConfig(vocab_size=tiny.VOCABULARY))
    second.save_pretrained(catalog / "second")
    torch.nn.init.zeros_(second.image_projection.weight)
    second.save_pretrained(catalog / "flat")
    lines = [
        {"text": text, "category": "odd" if n % 2 else "even", "rendered": text[-1:] * (n < 2)}
        for n, text in enumerate(tiny.PROMPTS)
    ]
    (catalog / "told.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    tokenizer = {"path": "tokenizer"}
    values["quality"] |= {
        "prompts": "told.jsonl",
        "other_judges": {
            "second": {
                "source": {"path": "second"},
                "tokenizer": tokenizer,
                "licence": "CC-BY-NC-4.0",
            },
            "flat": {"source": {"path": "flat"}, "tokenizer": tokenizer},
            "text": {"ocr": "rapidocr"},
        },
    }
    path = catalog / "judged.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_other_judges_are_asked_and_one_that_fails_is_left_out(work: Path, whole: Path) -> None:
    path = judges_beside(work / "catalog")
    where = ("--catalog", str(path), "--out", str(work / "judged"), "--json")
    words = ("--profile", str(profile(work, "cpu-2gb", ["fp32", "int8"])), *where)
    result = run(work, "build", *words)
    assert result.exit_code == 0, result.output
    evidence = json.loads(result.stdout)["evidence"]
    others = {each["judge"]: each for each in evidence["other_judges"]}
    assert list(others) == ["second", "text"]
    assert others["second"]["mixes"] == len(evidence["standings"]) - 1 == 3
    assert others["second"]["quality"]["pictures"] == len(tiny.PROMPTS)
    assert others["second"]["quality"]["value"] != evidence["quality"]["value"]
    assert others["text"]["quality"]["pictures"] == 2  # prompts that ask for a text
    assert list(evidence["judges_left_out"]) == ["flat"]
    assert "to every image" in evidence["judges_left_out"]["flat"]
    assert evidence["appearance"]["pictures"] == len(tiny.PROMPTS)
    told = " ".join(run(work, "inspect", str(work / "judged")).stdout.split())
    assert "Another judge, second, scores the winner" in told
    assert "CC-BY-NC-4.0, forbids commercial use" in told
    assert "The judge flat was left out" in told
    assert "Another judge, second" in (work / "judged" / "report.html").read_text()
    plan = json.loads(run(work, "plan", *words[:4], "--json").stdout)
    names = [each["name"].split(".")[-1] for each in plan["judges"]]
    assert names == ["judge", "flat", "second", "text"]
    again = run(work, "build", *words, "--images", str(2 * len(tiny.PROMPTS)))
    assert again.exit_code == 0, again.output
    rule = json.loads(again.stdout)["evidence"]["rule"]
    assert rule["prompts"] == 2 * rule["different_prompts"] == 2 * len(tiny.PROMPTS)
    weighed = run(work, "build", *words, "--weigh", "odd=0")
    assert weighed.exit_code == 0, weighed.output
    evidence = json.loads(weighed.stdout)["evidence"]
    assert evidence["rule"]["weights"] == {"odd": 0}
    assert evidence["quality"]["pictures"] == len(tiny.PROMPTS) // 2
    assert list(evidence["standings"][0]["categories"]) == ["even"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "precisions"), [("4gb-gpu", ["fp16", "w8", "w4"]), ("gtx-1650-4gb", ["fp16", "w8"])]
)
def test_a_mixed_mix_fills_a_budget_between_the_uniform_ones(
    work: Path, device: str, precisions: list[str]
) -> None:
    pytest.importorskip("tensorrt_rtx")
    every = build(work, device, precisions, "roomy")["evidence"]["standings"]
    assert not any("mixed" in s["mix"] for s in every)
    peaks = sorted(s["peak_bytes"] for s in every)
    budget = (peaks[0] + peaks[-1]) // 2 // 1024
    manifest = build(work, device, precisions, "tight", "--memory", f"{budget}KiB")
    mixed = [s for s in manifest["evidence"]["standings"] if "mixed" in s["mix"]]
    assert mixed
    assert all(0.95 * budget * 1024 <= s["peak_bytes"] <= budget * 1024 for s in mixed)


@pytest.mark.slow
def test_large_pictures_of_mixes_nobody_scored_are_shown_too(work: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    words = ("--size", "256", "--images", "1")
    values = yaml.safe_load(profile(work, "4gb-gpu", ["fp16", "w8"]).read_text())
    device = work / "one-way.yaml"
    device.write_text(yaml.safe_dump({**values, "loading": ["resident"], "guidance": ["batched"]}))
    made = ("build", "--profile", str(device), "--catalog", str(work / "catalog"), *words)
    roomy = run(work, *made, "--out", str(work / "large"), "--json")
    assert roomy.exit_code == 0, roomy.output
    every = json.loads(roomy.stdout)["evidence"]["standings"]
    widest = max(every, key=lambda s: s["peak_bytes"])
    assert widest["mix"] == "e/fp16 + d/fp16 + v/fp16"
    budget = f"{(widest['peak_bytes'] - 1) // 1024}KiB"
    out = work / "narrow"
    tight = run(work, *made, "--out", str(out), "--memory", budget, "--json")
    assert tight.exit_code == 0, tight.output
    drawn = {s["mix"] for s in json.loads(tight.stdout)["evidence"]["standings"]}
    assert widest["mix"] not in drawn
    (record,) = (row.value for row in read_rows(out / "ledger.jsonl", ["build"]))
    assert widest["mix"] in {shown["mix"] for shown in record["shown"]}
    assert run(work, "report", str(out)).exit_code == 0


@pytest.mark.parametrize(
    ("base", "precisions"),
    [
        ("4gb-gpu", ["fp16", "w8"]),
        pytest.param("4gb-gpu", ["bf16"], marks=pytest.mark.slow),
        ("4gb-gpu", ["fp32"]),
        ("8gb-gpu", ["fp8", "int8"]),
    ],
)
def test_real_engines_for_a_gpu_that_is_not_here(
    work: Path, base: str, precisions: list[str]
) -> None:
    pytest.importorskip("tensorrt_rtx")
    manifest = build(work, base, precisions, "gpu")
    raced = " ".join(s["mix"] for s in manifest["evidence"]["standings"])
    assert all(f"/{precision}" in raced for precision in precisions)
    for part in manifest["parts"].values():
        assert (work / "gpu" / part["plan"]).stat().st_size > 0
    # Where attention is fused there are no slices.
    sliced = [part["sliced"] for part in manifest["parts"].values() if part["sliced"]]
    assert precisions == ["fp32"] or not sliced
    memory = manifest["memory"]
    assert memory["predicted_bytes"] == (
        sum(memory["weights"].values()) + memory["activation_bytes"]
    )
    assert manifest["tools"]["tensorrt_rtx_cu13"] != "-"
    here = ("run", str(work / "gpu"), PROMPTS[0], "--runtime", "onnxruntime-cpu")
    drawn = run(work, *here, "--out", str(work / "drawn"))
    if precisions == ["bf16"]:
        assert drawn.exit_code == 1
        assert "is in bf16, which ONNX Runtime does not compute on a CPU" in drawn.output
    else:
        assert drawn.exit_code == 0, drawn.output


@pytest.mark.parametrize("runtime", ["tensorrt", "onnxruntime-cuda"])
def test_a_bundle_for_a_device_that_builds_its_own_engines(work: Path, runtime: str) -> None:
    manifest = build(work, "h200", ["fp16"], runtime, runtime=runtime)
    memory = manifest["memory"]
    assert memory["predicted_from"] == "the graphs"
    assert memory["activation_bytes"] > 0
    for role, part in manifest["parts"].items():
        graph = onnx.load(work / runtime / part["graph"]).graph
        assert part["plan"] is None
        assert memory["weights"][role] == sum(
            onnx.numpy_helper.to_array(weight).nbytes for weight in graph.initializer
        )
    sessions = CUDA_SESSION_BYTES * len(manifest["parts"]) if "cuda" in runtime else 0
    assert memory["fixed_bytes"] == sessions
    drawn = run(work, "run", str(work / runtime), PROMPTS[0], "--out", str(work / "drawn"))
    assert drawn.exit_code == 0
    finished = run(work, "finish", str(work / runtime))
    if runtime == "tensorrt":
        assert finished.exit_code == 1
        assert "tensorrt" in finished.output
    else:
        assert finished.stdout == f"{work / runtime} already has all its engines\n"


def test_one_picture_is_enough_to_build(work: Path) -> None:
    evidence = build(work, "cpu-2gb", ["fp32"], "one", "--images", "1")["evidence"]
    assert evidence["quality"]["pictures"] == evidence["pictures"] == 1
    assert evidence["kid"] is None


@pytest.mark.usefixtures("whole")
def test_nothing_is_observed_where_nothing_is_rounded(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibration takes minutes for a large model, and fp32 needs none, however tight it is."""
    exported = Path("cache", "store", "graph")
    shutil.copytree(work / exported, tmp_path / exported)
    monkeypatch.setattr(
        "sdpack.quantization.quantizable_graph.observe", lambda *_, **__: pytest.fail("observed")
    )
    words = ("--profile", str(profile(tmp_path, "cpu-2gb", ["fp32"])), "--images", "1")
    places = ("--catalog", str(work / "catalog"), "--out", str(tmp_path / "out"))
    runner = CliRunner(env={"SDPACK_CACHE": str(tmp_path / "cache")})
    built = runner.invoke(main, ["build", *places, *words, "--json"])
    assert built.exit_code == 0, built.output
    budget = f"{(json.loads(built.stdout)['memory']['predicted_bytes'] - 1) // 1024}KiB"
    tight = runner.invoke(main, ["build", *places, *words, "--memory", budget, "--json"])
    assert tight.exit_code == 0, tight.output
    assert json.loads(tight.stdout)["placement"] != json.loads(built.stdout)["placement"]


def test_inspect_and_verify(work: Path, whole: Path) -> None:
    shown = run(work, "inspect", str(whole))
    assert shown.exit_code == 0
    assert "all unchanged" in shown.output
    assert "e/fp32 + d/fp32 + v/fp32 won: judge similarity" in shown.output
    seen = json.loads(run(work, "verify", str(whole), "--json").stdout)
    assert seen["predicted_bytes"] == open_bundle(whole).memory.predicted_bytes
    assert seen["measured_bytes"] > 2**20
    assert json.loads((whole / "verified.json").read_text())["runtime"] == "onnxruntime-cpu"


def test_the_licences_of_the_parts_are_in_the_manifest_and_in_the_report(whole: Path) -> None:
    """Those of the tiny catalog say "none", which is no licence that anybody knows."""
    manifest = open_bundle(whole)
    assert {part.loras for part in manifest.parts.values()} == {()}
    assert [str(part) for part in manifest.licensed_parts] == [
        "text encoder e (none)",
        "denoiser d (none)",
        "decoder v (none)",
    ]
    assert licence_line(manifest.licensed_parts) in (whole / "report.html").read_text()


def test_inspect_says_how_layers_differ(whole: Path) -> None:
    manifest = open_bundle(whole)
    role = Role.DENOISER
    assert _layers(manifest, role) == []
    changed = {
        "layers": {"w4:32": 7, "w8": 2},
        "fp32_nodes": tuple("abcd"),
        "refused": ("one", "two"),
    }
    part = manifest.parts[role].model_copy(update=changed)
    other = manifest.model_copy(update={"parts": {**manifest.parts, role: part}})
    assert _layers(other, role) == [
        "denoiser: layers by precision: 7 w4:32, 2 w8",
        "denoiser: 2 layers are not quantized, as the compiler rejects them",
        "denoiser: 4 nodes compute in fp32 for their range: a, b, c ...",
    ]


def test_a_cache_changed_in_place_does_not_ship(work: Path, whole: Path) -> None:
    for data in (work / "cache" / "store" / "variant").rglob("model.onnx.data"):
        data.write_bytes(bytes(data.stat().st_size))
    words = ("--profile", str(profile(work, "cpu-2gb", ["fp32"])), "--out", str(work / "again"))
    again = ("build", "--catalog", str(work / "catalog"), *words)
    for _ in range(3):  # one part is found damaged each time
        result = run(work, *again)
        if result.exit_code:
            assert "was changed after it was made" in result.output
    assert result.exit_code == 0 or run(work, *again).exit_code == 0
    there, wanted = (dict(open_bundle(folder).files) for folder in (work / "again", whole))
    assert there.pop("ledger.jsonl") != wanted.pop("ledger.jsonl")  # it tells the bundle's name
    assert there == wanted


def test_a_mix_that_draws_nothing_loses(work: Path) -> None:
    values = tiny.catalog()
    flat = tiny.decoder()
    torch.nn.init.zeros_(flat.decoder.conv_out.weight)
    torch.nn.init.zeros_(flat.decoder.conv_out.bias)
    flat.save_pretrained(work / "catalog" / "flat")
    values["decoders"]["flat"] = {**values["decoders"]["v"], "source": {"path": "flat"}}
    (work / "catalog" / "with-flat.yaml").write_text(yaml.safe_dump(values))
    where = ("--catalog", str(work / "catalog" / "with-flat.yaml"), "--out", str(work / "flatter"))
    device = str(profile(work, "cpu-2gb", ["fp32"]))
    result = run(work, "build", "--profile", device, *where, "--json")
    assert result.exit_code == 0, result.output
    evidence = json.loads(result.stdout)["evidence"]
    (standing,) = evidence["standings"]
    assert (standing["mix"], standing["outcome"]) == ("e/fp32 + d/fp32 + v/fp32", "won")
    (left_out,) = evidence["preselection"]["beaten"]
    assert (left_out["parts"], left_out["is_broken"]) == ("e + d + flat", True)
    shown = run(work, "inspect", str(work / "flatter"))
    assert "1 draw broken images in fp32" in " ".join(shown.output.split())


def test_a_bundle_that_was_verified_can_be_finished_and_verified(work: Path, whole: Path) -> None:
    for words in (("verify",), ("finish",), ("verify",), ("inspect",)):
        result = run(work, *words, str(whole))
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("damage", ["unet", "judge", "real.png"])
def test_a_catalog_with_damaged_files_is_not_whole(work: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(work / "catalog", tmp_path / "catalog")
    hurt = tmp_path / "catalog" / damage
    if hurt.is_dir():
        next(hurt.glob("*.safetensors")).write_bytes(b"short")
    else:
        hurt.write_bytes(b"")
    result = run(work, "catalog", "check", str(tmp_path / "catalog"))
    assert result.exit_code in (1, 2)
    assert damage in result.output
    assert "Traceback" not in result.output


def test_a_changed_bundle_is_refused(work: Path) -> None:
    build(work, "cpu-2gb", ["fp32"], "changed")
    with (work / "changed" / "sampler.json").open("a") as file:
        file.write(" ")
    for command in (("run", PROMPTS[0]), ("verify",), ("inspect",)):
        result = run(work, command[0], str(work / "changed"), *command[1:])
        assert result.exit_code == 1
        assert "sampler.json has SHA-256" in result.output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--memory", "1KiB"), 2, "nothing fits into 1.0 KiB"),
        (("--memory", "-5MiB"), 2, "not a size"),
        (("--images", "0"), 2, "images"),
    ],
)
def test_bad_input_is_one_line(work: Path, words: tuple[str, ...], code: int, said: str) -> None:
    where = ("--catalog", str(work / "catalog"), "--out", str(work / "none"))
    result = run(work, "build", "--profile", "4gb-gpu", *where, *words)
    assert result.exit_code == code
    assert said in result.output
    assert not (work / "none").exists()


def test_missing_weights_are_named_before_anything_is_made(work: Path, tmp_path: Path) -> None:
    values = tiny.catalog()
    values["denoisers"]["d"]["source"]["path"] = "nowhere"
    for item in (work / "catalog").iterdir():
        if item.name != "catalog.yaml":
            (tmp_path / item.name).symlink_to(item)
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump(values))
    result = run(work, "build", "--profile", "cpu-2gb", "--catalog", str(tmp_path))
    assert result.exit_code == 2
    assert "denoisers.d" in result.output
    assert "is missing" in result.output
