from __future__ import annotations

import inspect

import pytest
from sdpack.engines.onnxruntime import OrtSession
from sdpack.engines.session import Session
from sdpack.engines.tensorrt_session import TensorRTSession
from sdpack.runtime.tiling import TiledDecoder
from sdpack.serve.triton.model import TritonSession

KINDS: tuple[type[Session], ...] = (OrtSession, TensorRTSession, TiledDecoder, TritonSession)
METHODS = ("run", "close", "__enter__", "__exit__")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_session_class_accepts_the_arguments_of_the_protocol(
    kind: type[Session], method: str
) -> None:
    """With the session's arguments, by position; more of its own have defaults."""
    asked = inspect.signature(getattr(Session, method))
    given = [None] * len(asked.parameters)
    inspect.signature(getattr(kind, method)).bind(*given)
