from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.runtime.infotext import (
    GenerationParameters,
    model_hash,
    parse_infotext,
    program_version,
)
from sdpack.runtime.pipeline import Request
from sdpack.runtime.sampler_label import SamplerLabel

from tests.sdpack.documents.test_bundle import manifest
from tests.sdpack.runtime.webui_reader import read_infotext

MADE = GenerationParameters(
    prompt="a cat, sitting",
    negative_prompt="blurry",
    seed=4,
    steps=20,
    guidance_scale=7.0,
    width=512,
    height=768,
    model="mine",
    model_hash="0123456789abcdef" * 4,
    sampler=SamplerLabel("DPM++ 2M", "Karras", "DPMSolverMultistepScheduler"),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
PROMPTS = TEXTS.filter(lambda text: "Negative prompt:" not in text)


def test_the_text_is_the_web_uis() -> None:
    assert MADE.infotext() == (
        "a cat, sitting\n"
        "Negative prompt: blurry\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 4, "
        f"Size: 512x768, Model hash: 0123456789, Model: mine, Version: {program_version()}"
    )
    assert program_version().startswith("sdpack")


def test_a_line_without_something_to_say_is_left_out() -> None:
    plain = replace(MADE, negative_prompt="", prompt="", sampler=SamplerLabel("Euler"))
    assert plain.infotext().startswith("Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 4, ")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("mine", "mine"),
        ("a, b", '"a, b"'),
        ("v1: b", '"v1: b"'),
        ("two\nlines", '"two\\nlines"'),
        ('"quoted"', '"\\"quoted\\""'),
        (" wide ", '" wide "'),
        ("写实 (v2)", "写实 (v2)"),
    ],
)
def test_a_value_is_quoted_where_it_would_be_read_as_something_else(
    name: str, written: str
) -> None:
    text = replace(MADE, model=name).infotext()
    assert f", Model: {written}, Version: " in text
    assert read_infotext(text)[2]["Model"] == name
    assert parse_infotext(text)["Model"] == name


def stripped(prompt: str) -> str:
    """What is left of a prompt where each of its lines is stripped."""
    return "\n".join(line.strip() for line in prompt.lstrip().split("\n"))


@given(PROMPTS, PROMPTS, TEXTS.filter(bool), st.integers(0, 2**63 - 1))
def test_readers_find_what_was_written(prompt: str, negative: str, model: str, seed: int) -> None:
    made = replace(MADE, prompt=prompt, negative_prompt=negative, model=model, seed=seed)
    found = parse_infotext(made.infotext())
    for one, other, settings in (
        read_infotext(made.infotext()),
        (found["Prompt"], found["Negative prompt"], found),
    ):
        assert one == stripped(prompt)
        assert other.strip() == stripped(negative).strip()
        assert (settings["Model"], settings["Seed"]) == (model, str(seed))
    assert (found["Size-1"], found["Size-2"]) == ("512", "768")


def test_a_text_without_settings_is_a_prompt() -> None:
    assert parse_infotext("a cat: sitting, fat") == {
        "Prompt": "a cat: sitting, fat",
        "Negative prompt": "",
    }


def test_json_keeps_a_prompt_that_the_text_cannot() -> None:
    prompt = "  a sign\nNegative prompt: is what it says "
    made = replace(MADE, prompt=prompt, negative_prompt="")
    assert read_infotext(made.infotext())[1] == "is what it says"
    assert made.to_json()["prompt"] == prompt
    assert made.to_json()["size"] == "512x768"


def test_a_request_gives_its_own_settings_and_the_bundles() -> None:
    built = manifest(files={"a": "1"})
    request = Request(["a", "b"], [3, 4], 2.5, 64, 96, "no")
    made = GenerationParameters.of(request, 1, built, SamplerLabel("Euler"))
    assert (made.prompt, made.seed, made.width, made.height) == ("b", 4, 96, 64)
    assert (made.negative_prompt, made.guidance_scale) == ("no", 2.5)
    assert (made.steps, made.model) == (built.sampling.steps, built.name)
    assert GenerationParameters.of(replace(request, steps=8), 0, built, made.sampler).steps == 8


def test_the_hash_is_of_the_files() -> None:
    one, other = (model_hash(manifest(files={"a": content})) for content in "12")
    assert one != other
    assert len(one) == 64
