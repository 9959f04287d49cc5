import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sdpack.errors import InputError
from sdpack.units import (
    BYTES_PER,
    format_bytes,
    format_duration,
    format_estimate,
    parse_bytes,
    parse_duration,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [("24MiB", 24 * 2**20), ("1.5 gb", 1_500_000_000), ("512", 512), (7, 7), ("4GiB", 2**32)],
)
def test_sizes_as_people_write_them(text: str | int, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    "text", ["", "-4GiB", "4 gigs", "GiB", "0", "0.2B", "1e3", "nan", "4GiB5", "9" * 400]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_bytes(text)


@example(4611686019, "GB")
@given(st.integers(1, 2**40), st.sampled_from(sorted(BYTES_PER)))
def test_every_whole_number_of_units_is_read_exactly(count: int, unit: str) -> None:
    assert parse_bytes(f"{count}{unit}") == count * BYTES_PER[unit]


@given(st.integers(1, 2**45))
def test_what_is_printed_is_close_to_what_was_meant(count: int) -> None:
    assert abs(parse_bytes(format_bytes(count)) - count) <= 0.051 * max(count, 1)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (0.84, "0.8 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (192, "3 min 12 s"),
        (3599.6, "1 h"),
        (3900, "1 h 5 min"),
        (7199, "2 h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "10 s"), (41, "50 s"), (51, "1 min"), (170, "3 min"), (3570, "1 h"), (4900, "1 h 20 min")],
)
def test_an_estimate_is_rounded(seconds: float, words: str) -> None:
    assert format_estimate(seconds) == words


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_clear_refusal(text: str) -> None:
    try:
        assert parse_bytes(text) >= 1
    except InputError as error:
        said = str(error)
    else:
        said = repr(text)
    assert repr(text) in said


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("3m", 180), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), (" 12min ", 720)],
)
def test_durations_are_read_in_hours_minutes_and_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "0s", "-3m", "1d", "m", "3m2h"])
def test_other_texts_are_not_durations(text: str) -> None:
    with pytest.raises(InputError, match="not a duration"):
        parse_duration(text)
