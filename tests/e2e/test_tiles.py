"""Bundles whose decoder works in tiles, because nothing fits without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from diffusers import AutoencoderKL
from sdpack.cli.main import main
from sdpack.documents.bundle import open_bundle
from sdpack.documents.manifest import Manifest
from sdpack.documents.profile import find_profile, profiles_folder
from sdpack.domain.placement import Placement, Role
from sdpack.export.adopt import adopt
from sdpack.pack.context import BuildContext
from sdpack.pack.planning.fit import MemoryEstimates, fit
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.planning.mix import Mix, mixes
from sdpack.pack.request import BuildRequest
from sdpack.pack.toolchain import Toolchain
from sdpack.runtime.bundle import pipeline, request
from sdpack.runtime.finish import unfinished
from sdpack.store.artifacts import Store
from sdpack.store.ledger import Ledger

from tests.e2e import families
from tests.e2e.test_families import DIFFUSION

pytestmark = pytest.mark.slow

SIZE, LATENTS = 512, 64
ASKED = ("--size", str(SIZE), "--steps", "1", "--images", "1")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose decoder takes most of the memory, and whose denoiser attends to every pixel."""
    folder = tmp_path_factory.mktemp("tiles")
    families.write_model(folder / "model", "sd", DIFFUSION["euler"]())
    families.unet(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).save_pretrained(folder / "model" / "unet")
    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).save_pretrained(folder / "model" / "vae")
    return folder


def profile(work: Path, base: str) -> Path:
    """A device that has fp32 alone, and one way to place parts besides tiles."""
    path = work / f"{base}.yaml"
    values = yaml.safe_load((profiles_folder() / f"{base}.yaml").read_text())
    values |= {"precisions": ["fp32"], "loading": ["resident"], "guidance": ["batched"]}
    path.write_text(yaml.safe_dump(values))
    return path


def run(work: Path, *words: str) -> Result:
    return CliRunner(env={"SDPACK_CACHE": str(work / "cache")}).invoke(main, words)


def peaks(work: Path, path: Path) -> dict[Placement, int]:
    """What the one mix takes in each placement."""
    located = adopt(str(work / "model"))
    request = BuildRequest(
        find_profile(str(path)), located, work / "none", asked_sizes=((SIZE, SIZE),), steps=1
    )
    ledger = Ledger(work / "cache" / "ledger.sqlite")
    toolchain = Toolchain.of(BuildContext(request, Store(work / "cache" / "store"), ledger))
    every: list[Mix] = list(mixes(request.located.catalog, request.precisions))
    footprints = Footprints.of_toolchain(toolchain)
    memory = MemoryEstimates(footprints.of, footprints.fixed_bytes)
    found = {
        placement: fit(every, [placement], memory, 2**50)[0]
        for placement in toolchain.candidates.placements
    }
    ledger.close()
    return {placement: fitted.peak.bytes for placement, fitted in found.items()}


def built(work: Path, base: str) -> tuple[Path, Manifest]:
    """A bundle for a budget that whole pictures do not fit into."""
    path = profile(work, base)
    found = peaks(work, path)
    whole = min(found[place] for place in found if place.tile is None)
    tiled = min(found[place] for place in found if place.tile is not None)
    assert tiled < 0.8 * whole, "tiles would not be worth it"
    out = work / f"{base}-bundle"
    words = ("--profile", str(path), "--model", str(work / "model"), "--out", str(out))
    budget = f"{(tiled + whole) // 2 // 1024}KiB"
    result = run(work, "build", *words, *ASKED, "--memory", budget, "--json")
    assert result.exit_code == 0, result.output
    return out, open_bundle(out)


def test_a_tiled_bundle_draws_what_the_whole_one_draws(work: Path) -> None:
    tiled, manifest = built(work, "cpu-2gb")
    assert manifest.placement.tile == LATENTS // 2
    assert "tiles of 32" in manifest.evidence.standings[0].placement
    assert manifest.evidence.tiled_difference is not None
    assert manifest.evidence.tiled_difference <= 2
    part = manifest.parts[Role.DECODER]
    assert part.tiles is not None
    assert {"onnx/vae_decoder/stem.onnx", "onnx/vae_decoder/tail.onnx"} < part.files
    assert "onnx/vae_decoder/split.json" not in manifest.files
    words = ("--profile", str(work / "cpu-2gb.yaml"), "--model", str(work / "model"))
    result = run(work, "build", *words, "--out", str(work / "whole"), *ASKED, "--json")
    assert result.exit_code == 0, result.output
    whole = open_bundle(work / "whole")
    assert whole.placement.tile is None
    assert not {name for name in whole.files if name.endswith(("stem.onnx", "tail.onnx"))}
    pictures = [
        pipeline(folder, manifest).draw(request(manifest, ["a red cat"], [5])).astype(int)
        for folder, manifest in ((tiled, manifest), (work / "whole", whole))
    ]
    assert pictures[0].shape == (1, SIZE, SIZE, 3)
    assert np.abs(pictures[0] - pictures[1]).max() <= 2
    seen = run(work, "verify", str(tiled), "--json")
    assert seen.exit_code == 0, seen.output
    measured = json.loads(seen.stdout)
    assert measured["measured_bytes"] <= 1.05 * manifest.memory.predicted_bytes
    assert measured["measured_bytes"] < whole.memory.predicted_bytes


@pytest.mark.slow
def test_a_tiled_bundle_has_an_engine_for_each_of_the_two_graphs(work: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    out, manifest = built(work, "4gb-gpu")
    part = manifest.parts[Role.DECODER]
    assert part.plan is None
    assert part.tiles is not None
    plans = {"engines/decoder-stem.plan", "engines/decoder-tail.plan"}
    assert {engine.plan for engine in part.engines} == plans
    assert plans < set(manifest.files)
    assert unfinished(manifest) == []
    # In fp32 the compiler holds all scores of 4,096 tokens at once, unless it is given slices.
    assert manifest.parts[Role.DENOISER].sliced == "onnx/unet/sliced.onnx"
    assert "onnx/unet/sliced.onnx" in manifest.files
    assert (
        part.tiles.tail.inputs["features"].largest[2:] == (part.tiles.split.side(LATENTS, 32),) * 2
    )
    result = run(work, "run", str(out), "a red cat", "--out", str(work / "drawn"), "--json")
    assert result.exit_code == 0, result.output
