from __future__ import annotations

from sdpack.progress import counted, percent_done, within, without_count


def test_what_is_said_of_how_far_it_is() -> None:
    said: list[str] = []
    step = counted(said.append, "rounding: all of it")
    for place in range(2):
        for done in range(2):
            within(step, place, 2)(done, 2)
    assert said == [f"rounding: all of it: {share} %" for share in (0, 25, 50, 75)]
    assert {without_count(words) for words in said} == {"rounding: all of it"}
    assert [percent_done(words) for words in said] == [0, 25, 50, 75]


def test_nothing_to_do_is_no_error() -> None:
    said: list[str] = []
    counted(said.append, "x")(0, 0)
    assert said == ["x: 0 %"]


def test_other_numbers_are_no_count() -> None:
    assert without_count("drawing 16 prompts with 3 mixes") == "drawing 16 prompts with 3 mixes"
    assert percent_done("drawing 16 prompts with 3 mixes") is None
