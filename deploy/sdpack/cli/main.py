"""The `sdpack` command and its subcommands, each of which is imported on demand."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

import click

from sdpack.cli.interrupts import remembered
from sdpack.cli.version import version_option
from sdpack.errors import FAILED, USAGE, SdpackError

COMMANDS = (
    "plan",
    "build",
    "run",
    "serve",
    "finish",
    "verify",
    "inspect",
    "report",
    "study",
    "compare",
    "judge",
    "export",
    "quantize",
    "profiles",
    "catalog",
    "cache",
    "doctor",
)
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
EPILOG = """\b
Examples:
  sdpack profiles                      known devices
  sdpack profiles detect > my.yaml     a profile of this machine
  sdpack catalog show                  the candidate parts
  sdpack doctor                        hardware, and missing packages

Exit codes: 0 done, 1 failed, 2 wrong usage or nothing fits the budget.

Completion: eval "$(_SDPACK_COMPLETE=bash_source sdpack)", or zsh_source, fish_source.
"""


class LazyGroup(click.Group):
    """A group whose subcommands are `sdpack.cli.NAME.command`; errors become one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"sdpack.cli.{cmd_name}").command
        return found

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except OSError as error:  # such as a full disk behind `> file`; click handles closed pipes
            logging.getLogger(__name__).debug("", exc_info=True)
            _drop_output()
            where = f" ({error.filename})" if error.filename else ""
            check = "disk" if error.errno in DISK_ERRORS else "path"
            click.echo(f"Error: {error.strerror or error}{where}; check the {check}", err=True)
            sys.exit(FAILED)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        near = get_close_matches(args[0], COMMANDS, n=1)
        if near and args[0] not in COMMANDS and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with remembered():
                return super().invoke(ctx)
        except SdpackError as error:
            raise EXCEPTIONS[error.exit_code](str(error)) from error
        except KeyboardInterrupt:
            # After an interrupt within exec(), which dataclasses use, `python -m` ends with SIGINT
            # instead of our exit code, unless another exec() succeeds.
            exec("")
            raise Stopped from None


def _drop_output() -> None:
    """Discard buffered output, so that Python does not try to write it again at exit."""
    with suppress(OSError, ValueError, AttributeError):  # stdout is not a file in tests
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class Failed(click.ClickException):
    """The command failed."""

    exit_code = FAILED


class Refused(click.ClickException):
    """The input is wrong, or nothing fits."""

    exit_code = USAGE


EXCEPTIONS: dict[int, type[click.ClickException]] = {FAILED: Failed, USAGE: Refused}


class Stopped(click.ClickException):
    """The command was interrupted by Ctrl-C; running it again resumes."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__("stopped; run the same command to resume")


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@version_option
@click.option("-v", "--verbose", count=True, help="Log more; twice logs everything.")
@click.option("-q", "--quiet", is_flag=True, help="Print only results and errors.")
@click.pass_context
def main(ctx: click.Context, verbose: int, quiet: bool) -> None:
    """Text-to-image pipelines that fit a device, chosen by measured image quality."""
    if verbose < 2:
        for library in ("TRANSFORMERS", "DIFFUSERS"):  # the variables are read at import
            os.environ.setdefault(f"{library}_VERBOSITY", "error")
    said = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    others = max(said, logging.WARNING) if verbose < 2 else said  # -v is about sdpack alone
    logging.basicConfig(level=logging.ERROR if quiet else others, format="%(message)s")
    logging.getLogger("sdpack").setLevel(logging.ERROR if quiet else said)
    ctx.obj = {"quiet": quiet, "verbose": verbose}
