import os

# Of several test processes each keeps to a core of its own: two that compute on both cores at once
# wait for each other. Before anything else is imported, as libraries count cores when they are.
_worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
if _worker.isdecimal():
    _cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {_cores[int(_worker) % len(_cores)]})

from hypothesis import settings  # noqa: E402

# Shared machines are slow at times: an example may take long without anything being wrong.
settings.register_profile("sdpack", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("sdpack")
