from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from sdpack.cli.main import main

from tests.sdpack.cli.tree import Words, commands, options

ROOT = Path(__file__).parents[3]
COMMANDS = dict(commands())
ODD = re.compile(r"\bto be had\b|\banew\b|\bis no\b|\bhand back\b", re.IGNORECASE)


def helped(words: Words) -> str:
    result = CliRunner().invoke(main, [*words, "-h"])
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_an_example_of_itself(words: Words) -> None:
    _, marked, examples = helped(words).partition("Example")
    assert marked
    assert f"sdpack {' '.join(words)}" in examples


@pytest.mark.parametrize("words", [(), *COMMANDS], ids=" ".join)
def test_the_help_is_plain_english(words: Words) -> None:
    assert not ODD.search(helped(words))


def test_every_option_says_in_a_sentence_what_it_is_for() -> None:
    wrong = {
        (*words, option.opts[-1]): option.help
        for words, option in options()
        if not option.help or not re.fullmatch(r"[A-Z\W].*\.", option.help, re.DOTALL)
    }
    assert wrong == {}


def test_an_option_shows_its_default_where_it_has_one() -> None:
    silent = [
        (*words, option.opts[-1])
        for words, option in options()
        if isinstance(option.default, str | int | float | Path)
        and not option.is_flag
        and not option.count
        and not (option.show_default or words == ("serve",))
    ]
    assert silent == []


def written() -> Iterator[tuple[str, list[str]]]:
    """Each `sdpack` command that help texts and documents give, as words."""
    documents = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
    fenced = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    quoted = re.compile(r"`(sdpack [^`]+)`")
    texts = [(path.name, path.read_text()) for path in documents]
    texts = [(name, "\n".join(fenced.findall(text) + quoted.findall(text))) for name, text in texts]
    texts += [(" ".join(words) or "sdpack", helped(words)) for words in [(), *COMMANDS]]
    for name, text in texts:
        whole = text.replace("\\\n", " ")
        for line in re.findall(r"^\s*(?:\$ )?sdpack (.+)$|`sdpack ([^`]+)`", whole, re.MULTILINE):
            command = re.split(r"\s{3,}|\s#|[>|;]|&&", line[0] or line[1])[0]
            yield name, shlex.split(command)


def parsed(words: list[str]) -> None:
    """Read a command's options without doing anything.

    Raises:
        click.UsageError: it has no such option or command.
    """
    command: click.Command = main
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        with command.make_context("sdpack", list(rest), resilient_parsing=True) as context:
            name, found, rest = command.resolve_command(context, rest)
        if found is None:
            raise click.UsageError(f"no such command: {name}")
        command = found
    parser = command.make_parser(click.Context(command))
    parser.parse_args(rest)


COMMAND_LINES = [(name, words) for name, words in written()]


def test_many_commands_are_given_in_help_texts_and_documents() -> None:
    assert len(COMMAND_LINES) > 60
    with pytest.raises(click.UsageError):
        parsed(["build", "--nothing"])
    with pytest.raises(click.UsageError):
        parsed(["catalog", "nothing"])


@pytest.mark.parametrize(
    ("name", "words"), COMMAND_LINES, ids=[f"{n}: {' '.join(w)}" for n, w in COMMAND_LINES]
)
def test_a_command_that_is_written_down_exists_with_its_options(
    name: str, words: list[str]
) -> None:
    parsed([word for word in words if word != "..."])
