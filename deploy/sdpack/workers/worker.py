"""The main function of a worker process; see `sdpack.workers.pool`."""

from __future__ import annotations

import os
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from sdpack.workers.pool import Handle, JobResult, OpenHandle, Said


def main(connection_number: int, alive_number: int) -> None:
    """Do jobs until the connection is closed.

    Args:
        connection_number: file descriptor of the connection to the calling process.
        alive_number: file descriptor of a pipe that is closed when the calling process ends.
    """
    threading.Thread(target=_end_with, args=(alive_number,), daemon=True).start()
    with Connection(connection_number) as connection:
        try:
            open_handle: OpenHandle = connection.recv()
            handle = open_handle()
            while True:
                place, task = connection.recv()
                connection.send(_done(handle, place, task, connection))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def _end_with(alive_number: int) -> None:
    """End this process as soon as the calling one does, whatever it is doing."""
    os.read(alive_number, 1)
    os._exit(1)


def _done(handle: Handle, place: int, task: Any, connection: Connection) -> JobResult:
    try:
        return JobResult(place, handle(task, lambda line: connection.send(Said(line))))
    except Exception as error:  # the caller does the job itself, and fails as it should
        return JobResult(place, error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
