from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from sdpack.cli.main import main as cli
from sdpack.documents.record import BUILD
from sdpack.errors import InputError, StoreError
from sdpack.report.compare import compare, comparison_page
from sdpack.store.ledger import Ledger, write_rows

from benchmarks.example_ledgers import METRIC, entrant, record, write_build, write_scores
from tests.sdpack.documents.test_bundle import manifest

NOISE = np.random.default_rng(3).normal(0.3, 0.1, 40)


def bundle(folder: Path, precision: str, scores: NDArray[np.float64], **more: object) -> Path:
    """A folder with a ledger and pictures of one mix."""
    won = entrant("aaa", [precision] * 3, outcome="won", prompts=len(scores))
    shown = [{"label": "the winner", "mix": won.mix}]
    values = {"name": folder.name, "shown": shown, "shown_prompts": 2, **more}
    judge = values.pop("judge", None)
    if judge is not None:
        won = won.model_copy(update={"judge": judge})
    found = record([won], len(NOISE), **values)
    folder.mkdir()
    ledger = Ledger(folder / "all.sqlite")
    write_scores(ledger, found, won, scores.tolist())
    write_build(ledger, found)
    write_rows(folder / "ledger.jsonl", ledger.measurements(BUILD, METRIC))
    ledger.close()
    Image.new("RGB", (4 + 2 * 68, 4 + 68), "red").save(folder / "contact.png")
    return folder


def test_scores_are_paired_by_prompt(tmp_path: Path) -> None:
    first = bundle(tmp_path / "one", "fp16", NOISE)
    second = bundle(tmp_path / "two", "w4", NOISE[:24] - 0.05)
    found = compare(first, second)
    assert found.images == tuple(range(24))
    assert found.prompts == 24
    assert found.difference.value == pytest.approx(0.05)
    assert found.difference.low == pytest.approx(0.05)
    assert found.verdict.startswith(
        "one draws better than two: +0.050 [+0.050, +0.050] (95 % interval) over"
    )
    assert compare(second, first).verdict.startswith("one draws better than two: -0.050")


def test_images_of_one_prompt_count_once(tmp_path: Path) -> None:
    again = {"prompts": [f"prompt {n % 8}" for n in range(len(NOISE))], "different_prompts": 8}
    first = bundle(tmp_path / "one", "fp16", NOISE, **again)
    second = bundle(tmp_path / "two", "w4", NOISE - 0.05, **again)
    found = compare(first, second)
    assert (len(found.images), found.prompts) == (40, 8)
    assert found.verdict.startswith("Too few prompts to tell")
    assert "over the 40 images of 8 prompts both drew" in found.verdict
    build = found.first
    assert build.record.prompt_of(17) == 1
    assert build.record.prompt_words.startswith("8, image i of prompt i modulo 8")


def test_what_cannot_be_told_apart_is_said_so(tmp_path: Path) -> None:
    noise = np.random.default_rng(4).normal(0, 0.05, len(NOISE))
    first = bundle(tmp_path / "one", "fp16", NOISE)
    second = bundle(tmp_path / "two", "w4", NOISE + noise - noise.mean())
    assert compare(first, second).verdict.startswith("They cannot be told apart at 95 %")


def test_the_same_scores_are_not_called_a_difference(tmp_path: Path) -> None:
    first, second = (bundle(tmp_path / name, "fp16", NOISE) for name in ("one", "two"))
    verdict = compare(first, second).verdict
    assert verdict.startswith("Both score the same: ")
    assert verdict.endswith(f" is unchanged over the {len(NOISE)} prompts both drew.")


def test_the_page_shows_the_same_prompts(tmp_path: Path) -> None:
    folders = (
        bundle(tmp_path / "one", "fp16", NOISE),
        bundle(tmp_path / "two", "w4", NOISE - 0.05),
    )
    page = comparison_page(compare(*folders), folders)
    assert [row.label for row in page.sheet] == ["one", "two"]
    assert list(page.prompts) == ["prompt 0", "prompt 1"]
    assert [p.score for p in page.sheet[1].images] == pytest.approx(list(NOISE[:2] - 0.05))
    (figure,) = page.figures
    assert len(figure.rows) == len(NOISE)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"metric": "fidelity to fp32"}, "scored by judge similarity and fidelity to fp32"),
        ({"judge": "another"}, "judged by a judge and another"),
        ({"height": 128, "width": 128}, r"of size \[64, 64\] and \[128, 128\]"),
        ({"prompts": [f"else {n}" for n in range(40)]}, "share no prompts"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, more: dict[str, object], said: str
) -> None:
    first = bundle(tmp_path / "one", "fp16", NOISE)
    folder = tmp_path / "two"
    if "metric" in more:
        won = entrant("aaa", ["w4"] * 3, outcome="won", prompts=len(NOISE))
        found = record([won], len(NOISE), name="two", **more)
        folder.mkdir()
        ledger = Ledger(folder / "all.sqlite")
        write_scores(ledger, found, won, NOISE.tolist())
        write_build(ledger, found)
        write_rows(folder / "ledger.jsonl", ledger.measurements(BUILD, found.metric))
        ledger.close()
    else:
        bundle(folder, "w4", NOISE, **more)
    with pytest.raises(InputError, match=said):
        compare(first, folder)


def test_a_bundle_of_an_older_sdpack_says_so(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "manifest.json").write_text("{}")
    with pytest.raises(StoreError, match="built by an older sdpack"):
        compare(tmp_path / "old", tmp_path / "old")


def test_a_few_prompts_tell_nothing(tmp_path: Path) -> None:
    first = bundle(tmp_path / "one", "fp16", NOISE[:1] + 0.1)
    second = bundle(tmp_path / "two", "w4", NOISE[:1])
    assert compare(first, second).verdict.startswith("Too few prompts to tell: ")


def test_bundles_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
    first = bundle(tmp_path / "a" / "same", "fp16", NOISE)
    second = bundle(tmp_path / "b" / "same", "w4", NOISE - 0.05)
    assert compare(first, second).names == (str(first), str(second))
    assert compare(first, first).names[0] != compare(first, first).names[1]


def test_what_was_drawn_in_another_way_is_said(tmp_path: Path) -> None:
    first = bundle(tmp_path / "one", "fp16", NOISE)
    second = bundle(tmp_path / "two", "w4", NOISE, drawn_with="another way")
    caveat = compare(first, second).caveat
    assert caveat is not None
    assert "guidance 2, a test and 4 steps, guidance 2, another way" in caveat


@pytest.mark.parametrize("damage", [b"", b"no picture", None])
def test_a_damaged_contact_sheet_is_named(tmp_path: Path, damage: bytes | None) -> None:
    first = bundle(tmp_path / "one", "fp16", NOISE)
    if damage is None:
        Image.new("RGB", (10, 10)).save(first / "contact.png")
    else:
        (first / "contact.png").write_bytes(damage)
    for words in (["report", str(first)], ["compare", str(first), str(first)]):
        ran = CliRunner().invoke(cli, words)
        assert ran.exit_code == 1
        assert "contact.png" in ran.stderr
        assert len(ran.stderr.splitlines()) == 1


def test_no_page_goes_into_a_bundle_but_its_report(tmp_path: Path) -> None:
    first = bundle(tmp_path / "one", "fp16", NOISE)
    values = manifest().model_dump(mode="json", by_alias=True)
    (first / "manifest.json").write_text(json.dumps(values))
    out = str(first / "other.html")
    for words in (["report", str(first)], ["compare", str(first), str(first)]):
        ran = CliRunner().invoke(cli, [*words, "--out", out])
        assert ran.exit_code == 2
        assert "stray file in the bundle" in ran.stderr
    assert CliRunner().invoke(cli, ["report", str(first)]).exit_code == 0


def test_licences_of_both_are_shown(tmp_path: Path) -> None:
    origin = {"source": "x", "licence": "MIT", "loras": []}
    names = ("text encoder a", "denoiser a", "decoder a")
    first = bundle(tmp_path / "one", "fp16", NOISE, origins=dict.fromkeys(names, origin))
    second = bundle(tmp_path / "two", "w4", NOISE)
    (row,) = [row for row in compare(first, second).rows if row[0] == "commercial use"]
    assert row[1:] == ("allowed (MIT)", "unknown (not recorded)")
