"""OpenAI's images API, asked by OpenAI's own client."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args, get_type_hints

import httpx
import openai
import pytest
from PIL import Image
from sdpack.serve.app import Settings

from tests.sdpack.serve.clients import GENERATE, decoded, error
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


def test_pictures_as_openai_has_them(asking: httpx.Client) -> None:
    answer = asking.post(GENERATE, json={"prompt": "a cat", "n": 2, "size": "96x64", "seed": 5})
    assert answer.status_code == 200
    found = answer.json()
    assert found["size"] == "96x64"
    assert [one["seed"] for one in found["data"]] == [5, 6]
    pictures = [decoded(one["b64_json"]) for one in found["data"]]
    assert [picture.size for picture in pictures] == [(96, 64)] * 2
    assert [picture.getpixel((0, 9)) for picture in pictures] == [(5, 5, 5), (6, 6, 6)]
    assert json.loads(pictures[1].info["sdpack"])["seed"] == 6


@pytest.mark.parametrize(("name", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_each_format(asking: httpx.Client, name: str, kind: str) -> None:
    answer = asking.post(GENERATE, json={"prompt": "a cat", "output_format": name})
    (one,) = answer.json()["data"]
    assert decoded(one["b64_json"]).format == kind


def test_pictures_can_be_fetched_by_their_address(asking: httpx.Client) -> None:
    answer = asking.post(GENERATE, json={"prompt": "a cat", "response_format": "url", "seed": 9})
    (one,) = answer.json()["data"]
    assert one["b64_json"] is None
    fetched = asking.get(one["url"])
    assert fetched.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(fetched.content)).getpixel((0, 9)) == (9, 9, 9)
    assert asking.get(one["url"][:-1] + "1").status_code == 404
    assert error(asking.get("/v1/images/none/0"))["code"] == "not_found"


def test_another_model_is_not_here(asking: httpx.Client) -> None:
    answer = asking.post(GENERATE, json={"prompt": "a cat", "model": "dall-e-3"})
    assert answer.status_code == 404
    assert error(answer)["code"] == "model_not_found"
    assert asking.get("/v1/models/dall-e-3").status_code == 404
    assert asking.get("/v1/models/fake").json()["id"] == "fake"
    assert [one["id"] for one in asking.get("/v1/models").json()["data"]] == ["fake"]


def test_what_clients_leave_open_is_the_usual(asking: httpx.Client) -> None:
    asked = {"prompt": "a", "n": None, "size": None, "stream": False, "quality": "hd"}
    assert len(asking.post(GENERATE, json=asked).json()["data"]) == 1
