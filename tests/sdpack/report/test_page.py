from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright
from sdpack.report.build_page import report
from sdpack.report.page import html
from sdpack.report.points import read_build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_words_from_a_catalog_stay_words(many: Path) -> None:
    build = read_build(many)
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


def test_a_page_is_one_file_of_moderate_size(page: Path) -> None:
    text = page.read_text()
    assert len(text) < 5 * 2**20
    for word in ('src="http', 'href="http', "@import", "url(http"):
        assert word not in text
    charts = page.parent / "charts"
    names = sorted(path.stem for path in charts.iterdir())
    assert names == ["memory", "precision", "quality-latency", "quality-memory"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in charts.iterdir())
