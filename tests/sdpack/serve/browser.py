"""A real browser, where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DESKTOP, PHONE = (1280, 900), (390, 844)
needs_a_browser = pytest.mark.skipif(
    CHROMIUM is None or find_spec("playwright") is None,
    reason="chromium or playwright is not installed",
)


@contextmanager
def new_tab(size: tuple[int, int] = DESKTOP) -> Iterator[Page]:
    """An empty tab of a browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": size[0], "height": size[1]})
        tab.set_default_timeout(20_000)
        yield tab
        browser.close()


@contextmanager
def opened(url: str, size: tuple[int, int] = DESKTOP, excused: str | None = None) -> Iterator[Page]:
    """The page, that may say nothing to its console nor ask anybody else.

    Args:
        excused: a status; a browser writes every answer that is an error to its console.
    """
    said: list[str] = []
    with new_tab(size) as tab:
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda asked: _is_own(asked.url, url, said))
        tab.goto(url)
        yield tab
    assert [words for words in said if excused is None or excused not in words] == []


def _is_own(asked: str, url: str, said: list[str]) -> None:
    if not asked.startswith((url, "blob:", "data:")):
        said.append(asked)
