"""Check whether the server in this container is ready: exit 0 if so, else print why and exit 1.

    python -m sdpack.serve.healthcheck

It queries /readyz on port SDPACK_PORT of this machine.
"""

from __future__ import annotations

import http.client
import os
import sys

ANSWER_TIMEOUT_S = 4.0
USUAL_PORT = "8188"


def reason() -> str | None:
    """Why the server is not ready; None if it is."""
    port = os.environ.get("SDPACK_PORT", USUAL_PORT)
    connection = http.client.HTTPConnection(f"127.0.0.1:{port}", timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz", headers={"host": "localhost"})
        answer = connection.getresponse()
        words = answer.read(1000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"no answer on port {port}: {error}"
    finally:
        connection.close()
    return None if answer.status == 200 else words


if __name__ == "__main__":
    sys.exit(reason())
