from __future__ import annotations

import pytest
from sdpack.domain.closing import Closing


class Counted(Closing):
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_a_with_statement_gives_the_object_and_closes_it_once() -> None:
    counted = Counted()
    with counted as given:
        assert given is counted
        assert counted.closed == 0
    assert counted.closed == 1


def test_an_error_closes_the_object_and_propagates() -> None:
    counted = Counted()
    with pytest.raises(ValueError, match="inside"), counted:
        raise ValueError("inside")
    assert counted.closed == 1


def test_a_class_that_cannot_be_closed_cannot_be_made() -> None:
    class Forgetful(Closing):
        pass

    forgetful: type = Forgetful
    with pytest.raises(TypeError, match="close"):
        forgetful()
