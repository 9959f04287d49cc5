from __future__ import annotations

import contextlib
import os
import signal

import click
import pytest
from sdpack.cli.interrupts import heed, remembered
from sdpack.cli.output import progress


def test_an_interrupt_that_a_library_swallows_is_heeded_at_the_next_step() -> None:
    context = click.Context(click.Command("build"), obj={"quiet": True, "verbose": 0})
    with remembered(), progress(context) as say:
        say("before")
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            say("after")


def test_an_interrupt_is_forgotten_afterwards() -> None:
    with remembered(), contextlib.suppress(BaseException):
        os.kill(os.getpid(), signal.SIGINT)
    heed()
    with remembered():
        heed()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_someone_else_stays() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with remembered():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
