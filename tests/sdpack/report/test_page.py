from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, expect, sync_playwright
from sdpack.cli.main import main as cli
from sdpack.evaluate.confidence import interval
from sdpack.report.build_page import report, write_report
from sdpack.report.charts import build_figures
from sdpack.report.page import html
from sdpack.report.points import Build, read_build
from sdpack.store.ledger import read_rows

from tests.sdpack.report.ledgers import ledger_of_many

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 216 mixes."""
    path = tmp_path_factory.mktemp("report") / "ledger.sqlite"
    ledger_of_many(path)
    return path


@pytest.fixture(scope="module")
def page(ledger: Path) -> Path:
    _, path = write_report(ledger, ledger.parent / "report.html")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def drawn(build: Build, name: str) -> list[dict[str, Any]]:
    figure = next(figure for figure in build_figures(build, {}) if figure.name == name)
    spec = figure.spec
    rows = spec["datasets"].get("mixes")
    if rows is None:
        rows = max(spec["datasets"].values(), key=len)
    assert rows == figure.rows
    return list(rows)


def test_what_is_plotted_is_what_the_ledger_holds(ledger: Path) -> None:
    build = read_build(ledger)
    by_contents = {tuple(sorted(e.contents.items())): e.mix for e in build.record.entrants}
    scores: dict[str, dict[int, float]] = {}
    for row in read_rows(ledger, [build.record.metric]):
        mine = {key: row.inputs[key] for key in build.record.entrants[0].contents}
        mix = by_contents[tuple(sorted(mine.items()))]
        seen = zip(row.inputs["seeds"], row.value["scores"], strict=True)
        scores.setdefault(mix, {}).update(seen)
    rows = {row["mix"]: row for row in drawn(build, "quality-memory")}
    assert rows.keys() == scores.keys()
    best = scores[build.record.winner]
    for entrant in build.record.entrants[1:40]:
        own, point = scores[entrant.mix], rows[entrant.mix]
        apart = [own[number] - best[number] for number in own]
        assert point["quality"] == pytest.approx(np.mean(list(best.values())) + np.mean(apart))
        _, low, high = interval(np.array(apart), 0.05 / (len(build.record.entrants) - 1))
        assert point["high"] - point["low"] == pytest.approx(high - low)
        assert point["pictures"] == len(own)
        assert point["peak_mib"] == entrant.peak.bytes / 2**20


def test_a_deleted_row_changes_the_charts(ledger: Path, tmp_path: Path) -> None:
    fewer = tmp_path / "ledger.sqlite"
    shutil.copyfile(ledger, fewer)
    with sqlite3.connect(fewer) as database:
        database.execute(
            "DELETE FROM measurement WHERE key = (SELECT key FROM measurement WHERE kind = ? "
            "AND inputs NOT LIKE '%fp16%' LIMIT 1)",
            ("judge similarity",),
        )
    before, after = (len(drawn(read_build(p), "quality-memory")) for p in (ledger, fewer))
    assert (before, after) == (216, 215)


def test_a_page_is_one_file_of_moderate_size(page: Path) -> None:
    text = page.read_text()
    assert len(text) < 5 * 2**20
    for word in ('src="http', 'href="http', "@import", "url(http"):
        assert word not in text
    charts = page.parent / "charts"
    names = sorted(path.stem for path in charts.iterdir())
    assert names == ["memory", "precision", "quality-latency", "quality-memory"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in charts.iterdir())


def test_words_from_a_catalog_stay_words(ledger: Path) -> None:
    build = read_build(ledger)
    evil = "</script><script>alert(1)</script>"
    build.record = build.record.model_copy(update={"name": evil, "catalog": evil})
    text = html(report(build, None))
    assert evil not in text
    figures = text.split('id="figures">')[1].split("</script>")[0]
    assert json.loads(figures).keys() >= {"memory", "quality-memory"}


@needs_a_browser
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_opens_without_a_word_of_complaint(
    browser: Browser, page: Path, width: int
) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 900})
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(page.as_uri())
    tab.wait_for_function("document.documentElement.dataset.drawn === '4'")
    assert said == []
    assert asked == [page.as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    marks = tab.locator("#quality-memory svg path[aria-roledescription='point']")
    assert marks.count() == 216
    tab.close()


@needs_a_browser
def test_filters_show_the_mixes_that_were_picked(browser: Browser, page: Path) -> None:
    tab = browser.new_page()
    tab.goto(page.as_uri())
    tab.wait_for_function("document.documentElement.dataset.drawn === '4'")
    marks = tab.locator("#quality-memory svg path[aria-roledescription='point']")
    tab.select_option("select[name=denoiser]", "a/w4")
    expect(marks).to_have_count(36)
    tab.select_option("select[name=precision]", "fp16")
    expect(marks).to_have_count(20)
    marks.first.hover()
    tab.wait_for_selector("#vg-tooltip-element.visible")
    tip = tab.locator("#vg-tooltip-element").inner_text()
    assert "a/w4" in tip
    assert "judge similarity" in tip
    tab.get_by_role("button", name="Show all").click()
    expect(marks).to_have_count(216)
    tab.close()


def test_the_command_prints_points_for_machines(ledger: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    out = tmp_path / "r.html"
    ran = CliRunner().invoke(cli, ["report", str(ledger), "--out", str(out), "--json"])
    assert ran.exit_code == 0
    found = json.loads(ran.stdout)
    assert len(found["mixes"]) == 216
    assert found["mixes"][0]["mix"] == read_build(ledger).record.winner
    assert out.is_file()


@pytest.mark.parametrize("words", [["absent.sqlite"], ["."], ["ledger.sqlite", "--build", "x"]])
def test_bad_input_is_one_line(
    ledger: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    from click.testing import CliRunner

    monkeypatch.chdir(ledger.parent)
    ran = CliRunner().invoke(cli, ["report", *words])
    assert ran.exit_code == 1
    assert ran.stderr.startswith("Error: ")
    assert len(ran.stderr.splitlines()) == 1


@needs_a_browser
def test_a_tap_shows_the_mix(browser: Browser, page: Path) -> None:
    phone = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    tab = phone.new_page()
    tab.goto(page.as_uri())
    tab.wait_for_function("document.documentElement.dataset.drawn === '4'")
    mark = tab.locator("#quality-memory svg path[aria-roledescription='point']").last
    mark.scroll_into_view_if_needed()
    mark.tap()
    tab.wait_for_selector("#vg-tooltip-element.visible")
    assert "judge similarity" in tab.locator("#vg-tooltip-element").inner_text()
    phone.close()
