from __future__ import annotations

import pytest
from sdpack.errors import InputError
from sdpack.serve.addresses import parse_host, parse_origin, parse_proxies, parse_root_path


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://app.example", "https://app.example"),
        ("HTTPS://App.Example/", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("tauri://localhost", "tauri://localhost"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("null", "null"),
    ],
)
def test_an_origin_is_taken_as_browsers_send_it(text: str, origin: str) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text", ["*", "https://*", "app.example", "https://", "", "https://app.example/page", "//x"]
)
def test_what_no_browser_sends_as_an_origin_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--cors-origin .* such as https://app\.example"):
        parse_origin(text)


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("/sd", "/sd"), ("sd/", "/sd"), ("/a/b-c_d.e~f/", "/a/b-c_d.e~f"), ("/", ""), ("", "")],
)
def test_a_prefix_has_a_slash_before_it_and_none_after(text: str, prefix: str) -> None:
    assert parse_root_path(text) == prefix


@pytest.mark.parametrize("text", ["/a//b", "/a b", "/a?b", "https://x/a", "/../a", "/a/..", "/ä"])
def test_what_is_no_plain_path_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--root-path"):
        parse_root_path(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [("SD.example", "sd.example"), ("sd.example:8188", "sd.example"), ("[::1]:80", "::1")],
)
def test_a_host_is_its_name(text: str, name: str) -> None:
    assert parse_host(text) == name


@pytest.mark.parametrize("text", ["https://sd.example", "sd.example/images", "*", ""])
def test_what_no_browser_sends_as_a_host_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--allowed-host"):
        parse_host(text)


def test_proxies_are_addresses_and_networks() -> None:
    assert parse_proxies("10.0.0.7, 10.1.0.0/16,::1") == ("10.0.0.7", "10.1.0.0/16", "::1")
    assert parse_proxies("*") == ("*",)
    assert parse_proxies("") == ()
    for text in ("proxy.example", "10.0.0.1/8", "10.0.0.0/99", "10.0.0.1,*"):
        with pytest.raises(InputError, match="--forwarded-allow-ips"):
            parse_proxies(text)
