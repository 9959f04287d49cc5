"""The main function of a worker process; see `sdpack.workers.pool`."""

from __future__ import annotations

import os
import sys
import threading
from multiprocessing.connection import Connection

from sdpack.workers.jobs import OpenHandle, done
from sdpack.workers.pool import Said


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

            def say(line: str) -> None:
                connection.send(Said(line))

            while True:
                place, task = connection.recv()
                connection.send(done(handle, place, task, say))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return


def _end_with(alive_number: int) -> None:
    """End this process as soon as the calling one does, whatever it is doing."""
    os.read(alive_number, 1)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
