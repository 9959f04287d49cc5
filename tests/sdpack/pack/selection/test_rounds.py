from hypothesis import given
from hypothesis import strategies as st
from sdpack.evaluate.rules import Rules
from sdpack.pack.selection.rounds import finalists_of, screened_prompts


def test_fewer_large_images_race() -> None:
    assert finalists_of(is_large=True) < finalists_of(is_large=False)


@given(st.integers(1, 5000))
def test_a_screening_takes_a_part_of_the_prompts(most: int) -> None:
    screened = screened_prompts(Rules(most=most), most)
    assert min(most, 32) <= screened <= most
    assert screened <= max(32, most / 4 + 16)
