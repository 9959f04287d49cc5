"""A hub on this machine: serves folders as repositories, with the routes that the client uses."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0123456789" * 4


@dataclass
class Hub:
    """A running hub.

    Attributes:
        url: its address, for HF_ENDPOINT.
        sent: the number of bytes that were sent of each file.
        whole: the files that were asked for without a range.
    """

    url: str
    sent: dict[str, int] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)


@contextmanager
def serving(repositories: dict[str, Path]) -> Iterator[Hub]:
    """Serve folders by the names of their repositories, each with one revision, COMMIT."""
    hub = Hub("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, with_body: bool) -> None:
            path = unquote(self.path.split("?")[0])
            for name, folder in repositories.items():
                if path in (f"/api/models/{name}", f"/api/models/{name}/revision/{COMMIT}"):
                    return self._send(_about(name, folder), with_body)
                if path == f"/api/models/{name}/tree/{COMMIT}":
                    return self._send(_tree(folder), with_body)
                prefix = f"/{name}/resolve/{COMMIT}/"
                if path.startswith(prefix) and (folder / path[len(prefix) :]).is_file():
                    return self._send_file(folder, path[len(prefix) :], with_body)
            self.send_response(HTTPStatus.NOT_FOUND)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send_file(self, folder: Path, name: str, with_body: bool) -> None:
            data, status = (folder / name).read_bytes(), HTTPStatus.OK
            etag = hashlib.sha256(data).hexdigest()
            asked = self.headers.get("Range")
            if asked is not None:
                first, last = asked.removeprefix("bytes=").split("-")
                data, status = data[int(first) : int(last) + 1], HTTPStatus.PARTIAL_CONTENT
            if with_body:
                hub.sent[name] = hub.sent.get(name, 0) + len(data)
                if asked is None:
                    hub.whole.add(name)
            self._send(data, with_body, status, etag)

        def _send(
            self, data: bytes, with_body: bool, status: int = HTTPStatus.OK, etag: str = "none"
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{etag}"')
            self.end_headers()
            if with_body:
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _about(name: str, folder: Path) -> bytes:
    siblings = [{"rfilename": file, "size": size} for file, size in _sizes(folder).items()]
    about = {"_id": "1", "id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}
    return json.dumps({**about, "private": False, "downloads": 0, "tags": []}).encode()


def _tree(folder: Path) -> bytes:
    entries = [
        {"type": "file", "path": file, "size": size, "oid": "0" * 40}
        for file, size in _sizes(folder).items()
    ]
    return json.dumps(entries).encode()


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
