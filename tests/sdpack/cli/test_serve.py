from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner
from sdpack.cli.main import main
from sdpack.serve.app import Settings

from tests.sdpack.serve.fakes import manifest

ENVIRONMENT = {
    "SDPACK_CORS_ORIGIN": None,
    "SDPACK_ROOT_PATH": None,
    "SDPACK_FORWARDED_ALLOW_IPS": None,
    "FORWARDED_ALLOW_IPS": None,
    "SDPACK_MODEL_ALIAS": None,
}


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Settings of servers that were started; none listens."""
    found: list[Settings] = []

    def serve(_folder: Any, _manifest: Any, _runtime: Any, settings: Settings, *_: Any) -> None:
        found.append(settings)

    monkeypatch.setattr("sdpack.cli.serve.open_bundle", lambda _: manifest())
    monkeypatch.setattr("sdpack.serve.server.serve", serve)
    return found


def started(*words: str, **environment: str) -> Any:
    words = ("serve", "bundle", "--runtime", "onnxruntime-cpu", *words)
    return CliRunner().invoke(main, words, env={**ENVIRONMENT, **environment})


def test_by_default_no_other_origin_or_name_and_only_proxies_of_this_machine(
    given: list[Settings],
) -> None:
    assert started().exit_code == 0
    (found,) = given
    assert (found.origins, found.aliases, found.root_path) == ((), (), "")
    assert found.proxies == ("127.0.0.1", "::1")


def test_options_reach_the_server(given: list[Settings]) -> None:
    words = "--root-path sd/ --forwarded-allow-ips 10.0.0.0/8,::1 --model-alias dall-e-3"
    origins = "--cors-origin https://App.example/ --cors-origin http://localhost:3000"
    assert started(*words.split(), *origins.split()).exit_code == 0
    (found,) = given
    assert found.root_path == "/sd"
    assert found.proxies == ("10.0.0.0/8", "::1")
    assert found.aliases == ("dall-e-3",)
    assert found.origins == ("https://app.example", "http://localhost:3000")


def test_the_environment_names_them_too(given: list[Settings]) -> None:
    done = started(
        FORWARDED_ALLOW_IPS="*",
        SDPACK_ROOT_PATH="/sd",
        SDPACK_MODEL_ALIAS="dall-e-3 gpt-image-1",
        SDPACK_CORS_ORIGIN="https://a.example https://b.example",
    )
    assert done.exit_code == 0
    assert started(FORWARDED_ALLOW_IPS="*", SDPACK_FORWARDED_ALLOW_IPS="10.0.0.7").exit_code == 0
    first, second = given
    assert (first.proxies, first.root_path) == (("*",), "/sd")
    assert first.aliases == ("dall-e-3", "gpt-image-1")
    assert first.origins == ("https://a.example", "https://b.example")
    assert second.proxies == ("10.0.0.7",)


@pytest.mark.parametrize(
    "words",
    [
        ("--cors-origin", "*"),
        ("--cors-origin", "app.example"),
        ("--root-path", "/a b"),
        ("--forwarded-allow-ips", "10.0.0.0/99"),
    ],
)
def test_what_would_never_match_is_refused_before_anything_is_read(words: tuple[str, str]) -> None:
    done = started(*words)
    assert done.exit_code == 2
    assert f"{words[0]} {words[1]!r}" in done.stderr
    assert "Traceback" not in done.output
