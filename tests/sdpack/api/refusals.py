"""Calls of the API that fail with an error of one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sdpack


def check_refused(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    """Check that a call raises exactly this class of sdpack's errors, with this in its one line."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert issubclass(kind, sdpack.SdpackError)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
