"""OpenAI's images API, asked by OpenAI's own client."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args, get_type_hints

import httpx
import openai
import pytest
from PIL import Image
from sdpack.serve.app import Settings

from tests.sdpack.serve.fakes import FakeWorker, serving


@contextmanager
def served(settings: Settings | None = None) -> Iterator[tuple[openai.OpenAI, httpx.Client]]:
    """OpenAI's client of a server that is ready, and a plain one."""
    with (
        serving(FakeWorker(), settings) as (url, _, _),
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


def options() -> set[str]:
    """What OpenAI's client takes besides a prompt."""
    (params, _) = get_args(openai.types.ImageGenerateParams)
    return set(get_type_hints(params)) - {"prompt"}


def test_none_is_not_given_for_every_option_of_openais_client(client: openai.OpenAI) -> None:
    assert {"response_format", "output_format", "svg", "stream"} <= options()
    own = {"seed": None, "steps": None, "guidance_scale": None, "negative_prompt": None}
    every: dict[str, Any] = dict.fromkeys(options())
    for asked in (every, *({name: None} for name in every)):
        found = client.images.generate(prompt="a cat", **asked, extra_body=own)
        assert found.data is not None
        assert picture(found.data[0]).format == "PNG"


@pytest.mark.parametrize(
    "asked",
    [
        {"quality": quality}
        for quality in ("auto", "low", "medium", "high", "xhigh", "max", "standard", "hd")
    ]
    + [
        {"style": "vivid"},
        {"style": "natural"},
        {"background": "auto"},
        {"background": "opaque"},
        {"moderation": "low"},
        {"complexity": "high"},
        {"user": "u-1", "safety_identifier": "s-1"},
        {"stream": False, "partial_images": 0},
        {"output_compression": 100},
        {"size": "auto", "n": 2},
    ],
)
def test_what_openais_clients_send_draws_the_usual_picture(
    client: openai.OpenAI, asked: dict[str, Any]
) -> None:
    found = client.images.generate(prompt="a cat", extra_body={"seed": 5}, **asked)
    assert found.data is not None
    assert len(found.data) == asked.get("n", 1)
    assert picture(found.data[0]).getpixel((0, 9)) == (5, 5, 5)
    assert (found.background, found.size, found.output_format) == ("opaque", "64x64", "png")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"background": "transparent"}, "opaque"),
        ({"stream": True}, "/v1/jobs"),
        ({"partial_images": 2}, "partial images"),
        ({"frame_count": 4}, "animations"),
        ({"frame_duration_ms": 4}, "animations"),
        ({"svg": {"model": "x"}}, "vector"),
        ({"output_format": "svg"}, "webp"),
        ({"quality": "ultra"}, "'high'"),
        ({"style": "cubist"}, "'vivid'"),
        ({"moderation": "none"}, "'auto'"),
        ({"output_compression": 50}, "use jpeg or webp"),
        ({"output_compression": 50, "output_format": "png"}, "use jpeg or webp"),
        ({"output_compression": 101, "output_format": "jpeg"}, "100"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    client: openai.OpenAI, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        client.images.generate(prompt="a cat", extra_body=asked)
    assert caught.value.param in asked


@pytest.mark.parametrize("encoding", ["jpeg", "webp"])
def test_less_output_compression_gives_smaller_files(
    both: tuple[openai.OpenAI, httpx.Client], encoding: Literal["jpeg", "webp"]
) -> None:
    client, _ = both
    sizes = []
    for quality in (0, 50, 100):
        found = client.images.generate(
            prompt="noise", output_format=encoding, output_compression=quality
        )
        assert found.data is not None
        sizes.append(len(found.data[0].b64_json or ""))
    assert sizes == sorted(set(sizes))


def test_another_models_name_is_accepted_where_it_is_asked_for() -> None:
    named = ("dall-e-3", "openai/gpt-image-1")
    with served(Settings(aliases=named)) as (client, plain):
        assert [model.id for model in client.models.list()] == ["fake", *named]
        for name in ("fake", *named):
            assert client.models.retrieve(name).id == name
            assert client.images.generate(prompt="a", model=name).data
            job = plain.post("/v1/jobs", json={"prompt": "a", "model": name})
            assert job.status_code == 202
        with pytest.raises(openai.NotFoundError, match="--model-alias"):
            client.images.generate(prompt="a", model="dall-e-2")
        schemas = plain.get("/openapi.json").json()["components"]["schemas"]
        model = schemas["GenerationRequest"]["properties"]["model"]
        assert model["anyOf"][0]["enum"] == ["fake", *named]
