"""The playground: one page that needs nothing but the server it came from."""

from __future__ import annotations

import base64
import re
from functools import cache
from hashlib import sha256
from importlib.resources import files


@cache
def page() -> str:
    """The page, its styles and script in it."""
    folder = files(__name__)
    whole = folder.joinpath("index.html").read_text("utf-8")
    for tag, name in (("style", "page.css"), ("script", "page.js")):
        text = folder.joinpath(name).read_text("utf-8")
        whole = whole.replace(f"<{tag}></{tag}>", f"<{tag}>{text}</{tag}>")
    return whole


@cache
def page_policy() -> str:
    """What the page may load and do: its own styles and script, and ask its own server."""
    style, script = (_hashed(tag) for tag in ("style", "script"))
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {style}",
            f"script-src {script}",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _hashed(tag: str) -> str:
    found = re.search(f"<{tag}>(.*?)</{tag}>", page(), re.DOTALL)
    assert found is not None
    digest = base64.b64encode(sha256(found[1].encode()).digest()).decode()
    return f"'sha256-{digest}'"
