from __future__ import annotations

from contextlib import closing
from pathlib import Path

from sdpack.report.build_page import report, summary
from sdpack.report.points import read_build
from sdpack.store.ledger import Ledger

from benchmarks.example_ledgers import entrant, record, write_build, write_scores


def test_the_words_name_the_winner_and_its_rival(many: Path) -> None:
    build = read_build(many)
    words = "\n".join(summary(build))
    winner, *others = build.points
    rival = max(others, key=lambda point: point.difference.value)
    assert words.startswith(f"{winner.mix} was chosen for ")
    assert f"judge similarity {winner.own.value:.3f} over {winner.images} images" in words
    assert f"{rival.mix} came closest: {rival.difference.signed()}" in words


def test_the_tables_have_a_row_for_every_mix_and_cost(many: Path) -> None:
    build = read_build(many)
    mixes, costs, *_ = report(build, None).tables
    assert len(mixes.rows) == len(build.points) == 216
    assert len(costs.rows) == len(build.costs)
    assert all(len(row) == len(mixes.columns) for row in mixes.rows)


def test_the_page_says_which_licence_restricts_the_winner(tmp_path: Path) -> None:
    won = entrant("abc", ["fp16"] * 3, outcome="won", prompts=16)
    origin = {"source": "x", "licence": "MIT", "loras": []}
    lora = {"source": "owner/lora", "licence": "gemma", "scale": 0.5}
    origins = {
        "text encoder a": {**origin, "licence": "cc-by-nc-4.0"},
        "denoiser b": {**origin, "loras": [lora]},
        "decoder c": origin,
    }
    found = record([won], 16, origins=origins)
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        write_scores(ledger, found, won, [0.5, 0.6] * 8)
        write_build(ledger, found)
    page = report(read_build(tmp_path / "ledger.sqlite"), None)
    assert page.summary[-1] == (
        "Licences: not for commercial use, because of text encoder a (cc-by-nc-4.0); commercial "
        "use under conditions for LoRA owner/lora of denoiser b (gemma)."
    )
    rows = {row[0]: row[1] for row in page.tables[-1].rows}
    assert rows["text encoder a"] == "x; cc-by-nc-4.0, forbids commercial use"
    assert rows["LoRA of denoiser b"].endswith("rules of use; scale 0.5")
