"""The playground in a real browser."""

from __future__ import annotations

import httpx
import pytest
from sdpack.domain.placement import Role
from sdpack.serve.app import Settings
from sdpack.serve.limits import Limits
from sdpack.serve.page import page, page_policy

from tests.sdpack.serve.browser import DESKTOP, PHONE, needs_a_browser, opened
from tests.sdpack.serve.fakes import FakeWorker, manifest, serving

KEY = "0123456789abcdef0123"


@needs_a_browser
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_drawn_by_keyboard_alone(size: tuple[int, int]) -> None:
    with serving(FakeWorker()) as (url, _, _), opened(url, size) as tab:
        tab.wait_for_selector("#draw:not([disabled])")
        assert tab.text_content("#model") == "fake"
        assert tab.evaluate("document.activeElement.id") == "prompt"
        tab.keyboard.type("a cat & <b>")
        tab.keyboard.press("Tab")
        tab.keyboard.press("Tab")
        tab.keyboard.type("7")
        tab.focus("#count")
        tab.keyboard.press("Control+a")
        tab.keyboard.type("2")
        tab.focus("#prompt")
        tab.keyboard.press("Control+Enter")
        tab.wait_for_selector("#gallery li:nth-child(2) img")
        captions = tab.locator("figcaption").all_text_contents()
        assert captions == ["a cat & <b>seed 8, 4 steps", "a cat & <b>seed 7, 4 steps"]
        assert tab.text_content("#said") == "2 pictures drawn"
        assert tab.locator("#gallery img").first.evaluate("x => x.naturalWidth") == 64
        assert tab.locator("#mix tr").count() == 3
        assert (tab.text_content("#licences") or "").startswith("Licences: unknown for LoRAs of")
        assert tab.evaluate("document.documentElement.scrollWidth") <= size[0]
        tab.click("#again")
        assert tab.input_value("#seed") == "8"


@needs_a_browser
def test_a_part_that_is_loaded_in_its_turn_has_no_bytes_at_the_peak() -> None:
    worker = FakeWorker()
    whole = worker.manifest.memory.model_dump()
    largest = {Role.DENOISER: whole["weights"][Role.DENOISER]}
    worker.manifest = manifest(memory={**whole, "weights": largest})
    with serving(worker) as (url, _, _), opened(url) as tab:
        tab.wait_for_selector("#draw:not([disabled])")
        told = tab.locator("#mix tr td:nth-child(5)").all_text_contents()
        assert told[0] == told[2] == "when its turn comes"
        assert told[1].endswith("iB")


@needs_a_browser
def test_progress_is_shown_and_drawing_can_be_stopped() -> None:
    worker = FakeWorker()
    worker.go.clear()
    with serving(worker) as (url, _, service), opened(url) as tab:
        tab.wait_for_selector("#draw:not([disabled])")
        tab.fill("#prompt", "a cat")
        tab.click("#draw")
        tab.wait_for_selector("#progress:not([hidden])")
        tab.get_by_text("step 0 of 4").wait_for()
        tab.click("#stop")
        tab.get_by_text("cancelled").wait_for()
        worker.go.set()
        tab.wait_for_selector("#draw:not([disabled])")
        assert tab.locator("#gallery li").count() == 0
        assert service.scheduler.depth == 0
        assert worker.steps == [0]


@needs_a_browser
def test_what_goes_wrong_is_said() -> None:
    with serving(FakeWorker()) as (url, _, _), opened(url) as tab:
        tab.wait_for_selector("#draw:not([disabled])")
        tab.fill("#prompt", "broken")
        tab.click("#draw")
        tab.get_by_text("one flat colour").wait_for()
        assert tab.get_attribute("#said", "class") == "bad"


@needs_a_browser
def test_a_key_is_asked_for_and_kept() -> None:
    settings = Settings(Limits(wait_s=0), keys=[KEY])
    with serving(FakeWorker(), settings) as (url, _, _), opened(url, excused="401") as tab:
        tab.wait_for_selector("dialog[open]")
        tab.fill("#key", "wrong")
        tab.click("dialog button")
        tab.wait_for_selector("dialog[open]")
        tab.fill("#key", KEY)
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#draw:not([disabled])")
        tab.fill("#prompt", "a cat")
        tab.click("#draw")
        tab.wait_for_selector("#gallery img")


@needs_a_browser
def test_the_page_waits_for_the_engines() -> None:
    worker = FakeWorker()
    worker.loadable.clear()
    with serving(worker) as (url, _, _), opened(url, excused="503") as tab:
        tab.get_by_text("loading the engines").wait_for()
        assert tab.is_disabled("#draw")
        worker.loadable.set()
        tab.wait_for_selector("#draw:not([disabled])")


def test_the_page_is_small_and_holds_all_it_needs() -> None:
    text = page()
    assert len(text) < 50_000
    assert "src=" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert page_policy().count("'sha256-") == 2
    assert "unsafe" not in page_policy()


def test_the_page_is_served_with_its_policy() -> None:
    with serving(FakeWorker()) as (url, _, _):
        answer = httpx.get(url)
        assert answer.text == page()
        assert answer.headers["content-security-policy"] == page_policy()
