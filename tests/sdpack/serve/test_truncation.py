"""A prompt that is not read to its end: every API says so."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Literal

import httpx
import openai
import pytest
from sdpack.domain.placement import Role
from sdpack.runtime.pictures import Format

from tests.sdpack.serve.fakes import READ, FakeWorker, service, serving

READ_OF_IT = "a red heart on " + "x" * (READ - 15)
LONG = READ_OF_IT + " a white table"
SAID = "prompt: truncated: text_encoder reads 77 tokens and stops after "


@pytest.fixture(scope="module")
def asking() -> Iterator[httpx.Client]:
    with serving(FakeWorker()) as (url, _, _), httpx.Client(base_url=url, timeout=20) as client:
        while client.get("/readyz").status_code != 200:
            pass
        yield client


@pytest.mark.parametrize("response_format", ["b64_json", "url"])
def test_openais_client_gets_the_prompt_that_was_read(
    asking: httpx.Client, response_format: Literal["b64_json", "url"]
) -> None:
    with openai.OpenAI(base_url=f"{asking.base_url}/v1", api_key="none") as client:
        for prompt, read, said in ((LONG, READ_OF_IT, [SAID]), ("a cat", None, [])):
            found = client.images.generate(prompt=prompt, n=2, response_format=response_format)
            assert found.data is not None
            assert [one.revised_prompt for one in found.data] == [read] * 2
            assert found.model_extra is not None
            warnings = found.model_extra["warnings"]
            assert [words[: len(SAID)] for words in warnings] == said


def test_a_job_says_so_from_the_beginning(asking: httpx.Client) -> None:
    started = asking.post("/v1/jobs", json={"prompt": LONG}).json()
    assert started["warnings"] == [f"{SAID}{READ_OF_IT[-40:]!r}"]
    while (job := asking.get(f"/v1/jobs/{started['id']}").json())["status"] != "done":
        time.sleep(0.01)
    assert job["warnings"] == started["warnings"]
    assert [one["revised_prompt"] for one in job["data"]] == [READ_OF_IT]
    assert asking.post("/v1/jobs", json={"prompt": "a cat"}).json()["warnings"] == []


def test_the_web_uis_info_says_so(asking: httpx.Client) -> None:
    for prompt, said in ((LONG, f"{SAID}{READ_OF_IT[-40:]!r}"), ("a cat", "")):
        answer = asking.post("/sdapi/v1/txt2img", json={"prompt": prompt}).json()
        assert json.loads(answer["info"])["comments"] == said


@pytest.mark.parametrize(("scale", "told"), [(3.0, True), (1.0, False)])
def test_a_negative_prompt_counts_where_it_is_used(
    asking: httpx.Client, scale: float, told: bool
) -> None:
    asked = {"prompt": "a cat", "negative_prompt": LONG, "guidance_scale": scale}
    job = asking.post("/v1/jobs", json=asked).json()
    assert [words.partition(":")[0] for words in job["warnings"]] == ["negative_prompt"] * told


@pytest.mark.parametrize(
    ("lengths", "read"), [((77, None), None), ((77, 200), LONG[:200]), ((None, None), None)]
)
def test_the_prompt_is_revised_only_where_no_encoder_reads_all_of_it(
    lengths: tuple[int | None, int | None], read: str | None
) -> None:
    worker = FakeWorker()
    made = worker.manifest
    encoders = (Role.TEXT_ENCODER, Role.TEXT_ENCODER_2)
    more = dict.fromkeys(encoders, made.parts[Role.TEXT_ENCODER])
    worker.manifest = made.model_copy(update={"parts": {**made.parts, **more}})
    worker.reads = {
        role: (length, length)
        for role, length in zip(encoders, lengths, strict=True)
        if length is not None
    }
    asked = service(worker).asked(LONG, 1, Format(), guidance_scale=1.0)
    assert asked.read == read
    assert [words.split()[2] for words in asked.warnings] == [
        role.value for role, length in zip(encoders, lengths, strict=True) if length is not None
    ]
