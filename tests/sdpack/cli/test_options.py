from __future__ import annotations

import pytest

from tests.sdpack.cli.tree import options

SHORT = {"--out": "-o", "--profile": "-p", "--verbose": "-v", "--quiet": "-q", "--version": "-V"}


@pytest.mark.parametrize("long", SHORT)
def test_an_option_has_the_same_short_form_wherever_it_is(long: str) -> None:
    found = {words: option.opts for words, option in options() if long in option.opts}
    assert found
    assert {words: opts for words, opts in found.items() if SHORT[long] not in opts} == {}


def test_a_short_form_means_one_thing_everywhere() -> None:
    meant: dict[str, set[str]] = {}
    for _, option in options():
        long = next(name for name in option.opts if name.startswith("--"))
        for short in set(option.opts) - {long}:
            meant.setdefault(short, set()).add(long)
    assert {short: longs for short, longs in meant.items() if len(longs) > 1} == {}
    assert meant["-o"] == {"--out"}
    assert meant["-p"] == {"--profile"}
