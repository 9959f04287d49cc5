"""OpenAI's images API, asked by OpenAI's own client."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
from PIL import Image
from sdpack.serve.app import Settings

from tests.sdpack.serve.fakes import FakePainter, serving


@contextmanager
def served(settings: Settings | None = None) -> Iterator[tuple[openai.OpenAI, httpx.Client]]:
    """OpenAI's client of a server that is ready, and a plain one."""
    with (
        serving(FakePainter(), settings) as (url, _, _),
        httpx.Client(base_url=url, timeout=20) as plain,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        while plain.get("/readyz").status_code != 200:
            pass
        yield client, plain


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[openai.OpenAI, httpx.Client]]:
    with served() as clients:
        yield clients


@pytest.fixture(scope="module")
def client(both: tuple[openai.OpenAI, httpx.Client]) -> openai.OpenAI:
    return both[0]


def picture(one: Any) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(one.b64_json)))


OPTIONS = openai.types.image_generate_params.ImageGenerateParamsNonStreaming.__annotations__


def test_none_is_not_given_for_every_option_of_openais_client(client: openai.OpenAI) -> None:
    options: dict[str, Any] = dict.fromkeys(
        {*openai.types.ImageGenerateParams.__args__[0].__annotations__, "seed", "steps"}  # type: ignore[attr-defined]
        - {"prompt"}
    )
    extra = {"extra_body": {name: None for name in ("seed", "steps", "guidance_scale")}}
    for name in ("seed", "steps"):
        del options[name]
    assert {"response_format", "output_format", "svg", "safety_identifier"} <= set(options)
    for asked in (options, *({name: None} for name in options)):
        found = client.images.generate(prompt="a cat", **asked, **extra)
        assert found.data is not None
        assert picture(found.data[0]).format == "PNG"
