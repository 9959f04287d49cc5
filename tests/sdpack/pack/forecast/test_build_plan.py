"""Plans of the zoo, whose files are here, and of catalogs that would have to be fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from diffusers import FlowMatchEulerDiscreteScheduler
from sdpack.cli.main import main
from sdpack.documents.catalog_files import default_catalog, located_catalog
from sdpack.documents.profile import find_profile
from sdpack.domain.precision import Precision, Runtime, weight_bits
from sdpack.errors import CatalogError, InfeasibleError
from sdpack.evaluate.rules import Rules
from sdpack.export.adopt import Adoption, adopt
from sdpack.pack.candidates import Candidates
from sdpack.pack.checks import check
from sdpack.pack.forecast import build_plan
from sdpack.pack.forecast.build_plan import BuildPlan, Planning
from sdpack.pack.forecast.candidate_sizes import STORED_BYTES
from sdpack.pack.forecast.stages import Stage
from sdpack.pack.request import BuildRequest
from sdpack.store.ledger import Ledger

from tests.e2e import language_families

CPU = Runtime.ONNXRUNTIME_CPU


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Any:
    opened = Ledger(tmp_path_factory.mktemp("plan") / "ledger.sqlite")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hub that is empty here, and out of reach."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def candidates(catalog: str | None, **changes: Any) -> Candidates:
    located = default_catalog() if catalog is None else located_catalog(catalog)
    return Candidates(BuildRequest(find_profile("4gb-gpu"), located, Path("x"), **changes))


def planned(ledger: Ledger, catalog: str | None, **changes: Any) -> BuildPlan:
    return Planning(candidates(catalog, **changes), ledger).plan()


def test_the_zoo_has_nothing_to_fetch(ledger: Ledger) -> None:
    plan = planned(ledger, None, rules=Rules(most=64))
    assert plan.fetch_bytes == 0
    assert plan.seconds[Stage.FETCH].high == 0
    assert all(each.high > each.low > 0 for s, each in plan.seconds.items() if s is not Stage.FETCH)
    assert {part.name for part in plan.mixes["largest"]} == {"l", "kl"}
    for parts in plan.mixes.values():
        assert sum(part.share for part in parts) == pytest.approx(1)
    encoder = plan.mixes["largest"][0]
    wide, narrow = encoder.bytes_by_precision
    assert (wide, narrow) == (Precision.FP16, Precision.W4)
    assert encoder.bytes_by_precision[narrow] == encoder.parameters * weight_bits(narrow) // 8


def test_a_gpu_shortens_only_the_drawing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {Runtime.ONNXRUNTIME_CPU: 1e10, Runtime.ONNXRUNTIME_CUDA: 1e12}
    monkeypatch.setattr(build_plan, "machine_speed", lambda _, runtime=CPU: speeds[runtime])
    on_cpu = planned(ledger, None)
    on_gpu = planned(ledger, None, drawn_on=Runtime.ONNXRUNTIME_CUDA)
    for stage, seconds in on_cpu.seconds.items():
        times = 100 if stage is Stage.DRAW else 1
        assert on_gpu.seconds[stage].high * times == pytest.approx(seconds.high)


def test_a_catalog_says_what_would_be_fetched(ledger: Ledger) -> None:
    plan = planned(ledger, "sd15")
    sizes = {(size.role.value, size.name): size for size in plan.sizes}
    unet = sizes["denoiser", "sd15"]
    assert not unet.is_here
    assert not unet.is_exact
    assert unet.fetch_bytes == STORED_BYTES * 859_520_964
    assert sizes["denoiser", "sd15-lcm"].fetch_bytes == 0, "the same files, with a LoRA"
    encoder, denoiser, decoder = (part.share for part in plan.mixes["usual"])
    assert (round(encoder, 2), round(denoiser, 2), round(decoder, 2)) == (0.12, 0.83, 0.05)
    assert plan.seconds[Stage.DRAW].low > 3600
    assert len(list(Path("x").glob("*"))) == 0


def test_a_hopeless_budget_is_refused_before_anything_is_fetched(ledger: Ledger) -> None:
    request = {"budget_bytes": 60 * 2**20}
    for refuse in (
        lambda: planned(ledger, "sd15", **request),
        lambda: check(candidates("sd15", **request)),
    ):
        with pytest.raises(InfeasibleError, match="nothing was fetched or exported") as caught:
            refuse()
        # The smallest denoiser in four bits, phased, and the compiler's least scratch.
        assert caught.value.smallest_bytes == 323_384_964 // 2 + 8_192_000


def test_unknown_parameters_are_named(ledger: Ledger) -> None:
    located = located_catalog("sd15")
    decoders = {
        name: decoder.model_copy(update={"parameters": None})
        for name, decoder in located.catalog.decoders.items()
    }
    catalog = located.catalog.model_copy(update={"decoders": decoders})
    request = BuildRequest(
        find_profile("4gb-gpu"), type(located)(catalog, located.folder), Path("x")
    )
    with pytest.raises(CatalogError, match=r"decoders\.sd15: .* add `parameters`, or download"):
        Planning(Candidates(request), ledger).plan()


def run(tmp_path: Path, *words: str) -> Result:
    return CliRunner(env={"SDPACK_CACHE": str(tmp_path)}).invoke(main, words)


def test_the_command_prints_it_and_a_dry_run_the_same(tmp_path: Path) -> None:
    words = ("--profile", "4gb-gpu", "--catalog", "sd15", "--images", "64")
    ran = run(tmp_path, "plan", *words)
    assert ran.exit_code == 0, ran.output
    assert "859.5 M" in ran.stdout
    assert "download: about 15.94 GiB" in ran.stdout
    assert "images to draw: " in ran.stdout
    assert "not yet refined by a build" in ran.stdout
    dry = run(tmp_path, "build", *words, "--dry-run", "--out", str(tmp_path / "out"))
    assert dry.exit_code == 0, dry.output
    assert dry.stdout == ran.stdout
    assert not (tmp_path / "out").exists()
    document = json.loads(run(tmp_path, "plan", *words, "--json").stdout)
    assert document["uniform_mixes"] == 8 * 4 * 4**3
    assert document["fetch_bytes"] == sum(size["fetch_bytes"] for size in document["sizes"])
    lows = [each["low"] for each in document["seconds"].values()]
    assert document["all_seconds"]["low"] == pytest.approx(sum(lows))
    refused = run(tmp_path, "plan", *words, "--memory", "60MiB")
    assert refused.exit_code == 2
    assert "give at least --memory" in refused.output


@pytest.mark.parametrize(("scale", "is_guided"), [(0.0, False), (0.5, True)])
def test_a_denoiser_runs_twice_where_its_family_guides(
    ledger: Ledger, tmp_path: Path, scale: float, is_guided: bool
) -> None:
    """Z-Image guides from any scale above 0 on."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    language_families.write_model(tmp_path / "m", "z-image", scheduler)
    located = adopt(str(tmp_path / "m"), Adoption(guidance_scale=scale))
    request = BuildRequest(find_profile("4gb-gpu"), located, Path("x"))
    plan = Planning(Candidates(request), ledger)
    assert plan._guided == ({"transformer"} if is_guided else set())
