"""`sdpack serve`: serves a bundle over HTTP."""

from __future__ import annotations

import ipaddress
import signal
import sys
import threading
from pathlib import Path

import click

from sdpack.cli.drawing import least_memory_option, runtime_option
from sdpack.cli.values import PATH, TEXT, Finite
from sdpack.documents.bundle import open_bundle
from sdpack.domain.precision import Runtime
from sdpack.errors import MissingPackageError
from sdpack.serve.addresses import TRUSTED, parse_host, parse_origin, parse_proxies, parse_root_path


@click.command(
    "serve",
    context_settings={"auto_envvar_prefix": "SDPACK", "show_default": True},
    epilog="""\b
Examples:
  sdpack serve engines/4gb-gpu
  sdpack serve engines/4gb-gpu --host 0.0.0.0 --api-key-file keys.txt
  curl -s localhost:8188/v1/images/generations -H 'content-type: application/json' \\
    -d '{"prompt": "a red heart"}'

Each option can be given as an environment variable: SDPACK_PORT, SDPACK_API_KEY_FILE ...

On SIGTERM or Ctrl-C the server stops accepting requests, finishes those it has accepted, and exits.
A second signal stops it at once.
""",
)
@click.argument("bundle", type=PATH, envvar="SDPACK_BUNDLE")
@click.option(
    "--host", type=TEXT, default="127.0.0.1", help="Address to listen on; 0.0.0.0 for all."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8188, help="Port to listen on; 0 for any free."
)
@click.option(
    "--api-key-file",
    type=PATH,
    help="File of API keys, one per line; clients send one as `Authorization: Bearer KEY`.",
)
@click.option(
    "--cors-origin",
    multiple=True,
    callback=lambda _ctx, _option, given: tuple(map(parse_origin, given)),
    help="Web origin whose pages may call the server, such as https://app.example; repeatable.",
)
@click.option(
    "--allowed-host",
    type=TEXT,
    multiple=True,
    callback=lambda _ctx, _option, given: tuple(map(parse_host, given)),
    help="Additional Host header to accept when no API key is set; repeatable.",
)
@click.option(
    "--root-path",
    default="",
    callback=lambda _ctx, _option, given: parse_root_path(given),
    help="Path prefix clients use, if a reverse proxy adds one without sending X-Forwarded-Prefix.",
)
@click.option(
    "--forwarded-allow-ips",
    envvar=["SDPACK_FORWARDED_ALLOW_IPS", "FORWARDED_ALLOW_IPS"],
    default=",".join(TRUSTED),
    callback=lambda _ctx, _option, given: parse_proxies(given),
    help="Addresses and networks of reverse proxies whose X-Forwarded headers are trusted, "
    "separated by commas; * for any.",
)
@click.option(
    "--model-alias",
    type=TEXT,
    multiple=True,
    help="Additional model name to accept, such as dall-e-3; repeatable.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    help="Maximum number of images drawn in one batch; default: the bundle's.",
)
@click.option(
    "--queue", type=click.IntRange(min=1), default=64, help="Maximum number of waiting images."
)
@click.option(
    "--wait-ms",
    type=Finite(0, 10_000),
    default=10.0,
    help="Milliseconds a batch waits to fill.",
)
@click.option(
    "--timeout", type=Finite(0.1, 86_400), default=300.0, help="Seconds a request may take."
)
@click.option(
    "--max-pictures",
    type=click.IntRange(min=1),
    default=10,
    help="Maximum number of images per request.",
)
@click.option(
    "--max-prompt",
    type=click.IntRange(min=1),
    default=4000,
    help="Maximum number of characters per prompt.",
)
@runtime_option
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads; default: all cores.")
@least_memory_option
@click.pass_context
def command(
    ctx: click.Context,
    bundle: Path,
    host: str,
    port: int,
    api_key_file: Path | None,
    cors_origin: tuple[str, ...],
    allowed_host: tuple[str, ...],
    root_path: str,
    forwarded_allow_ips: tuple[str, ...],
    model_alias: tuple[str, ...],
    batch: int | None,
    queue: int,
    wait_ms: float,
    timeout: float,
    max_pictures: int,
    max_prompt: int,
    runtime: str | None,
    threads: int | None,
    least_memory: bool,
) -> None:
    """Draw images over HTTP: OpenAI's images API, jobs with progress, and a page at /."""
    end_when_told()
    try:
        from sdpack.serve.server import serve
    except ModuleNotFoundError as cause:
        if cause.name is None or cause.name.split(".")[0] == "sdpack":
            raise
        raise MissingPackageError(cause.name, "serve", "serving a bundle") from cause
    from sdpack.runtime.choose import chosen_runtime
    from sdpack.serve.app import Settings
    from sdpack.serve.limits import Limits
    from sdpack.serve.security import read_keys

    manifest = open_bundle(bundle)
    if batch is not None and batch > manifest.sampling.batch:
        raise click.BadParameter(
            f"the bundle was built for batches of {manifest.sampling.batch}; build with --batch",
            param_hint="--batch",
        )
    local = _is_loopback(host)
    settings = Settings(
        Limits(
            queue=queue,
            images=max_pictures,
            prompt=max_prompt,
            wait_s=wait_ms / 1000,
            timeout_s=timeout,
        ),
        keys=read_keys(api_key_file) if api_key_file else (),
        origins=cors_origin,
        proxies=forwarded_allow_ips,
        root_path=root_path,
        hosts=(host, *allowed_host),
        aliases=model_alias,
        batch=batch,
        threads=threads,
        least_memory=least_memory,
    )
    if not local and api_key_file is None:
        click.echo(f"{host} is reachable from outside, but no --api-key-file is given", err=True)
    chosen = Runtime(runtime) if runtime else chosen_runtime(manifest)
    quiet = bool((ctx.obj or {}).get("quiet"))

    def say(words: str) -> None:
        if not quiet:
            click.echo(words, err=True)

    serve(bundle, manifest, chosen, settings, (host, port), say)


def end_when_told() -> None:
    """Make SIGTERM end this process until the server installs its own handler.

    The first process of a container would otherwise ignore it while the bundle is read.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
