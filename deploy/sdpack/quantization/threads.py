"""Linear algebra whose results do not depend on the number of threads, on all cores nevertheless.

BLAS splits a product among its threads, and the order of the sums, and with it the last bits,
depends on the split. Rounded weights would then depend on the machine's cores. Here each product is
computed by one thread, and several layers are computed at the same time.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

from sdpack.engines.detect import memory_bytes
from sdpack.engines.onnxruntime import default_threads

MEMORY_SHARE = 3  # what is computed at the same time may take one in this many parts of the memory

Item = TypeVar("Item")
Result = TypeVar("Result")


WITH_POOLS = ("numpy", "scipy", "torch", "cv2")  # packages that bring a BLAS or OpenMP of their own


@cache
def _controller(loaded: tuple[str, ...]) -> ThreadpoolController:
    """The thread pools of the libraries in this process, found once: that takes milliseconds.

    Args:
        loaded: those of WITH_POOLS that are loaded; a new one may have brought another pool.
    """
    return ThreadpoolController()


def _loaded() -> tuple[str, ...]:
    return tuple(name for name in WITH_POOLS if name in sys.modules)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread within this context, or the decorated function.

    It can be nested, and used in threads that end before it does. While threads of Python that do
    not know of each other use it, the first that leaves ends it for all.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _controller(_loaded()).limit(limits=1):
            yield
    finally:
        torch.set_num_threads(threads)


def threads_for(bytes_each: int) -> int:
    """The number of items to compute at the same time: one for each thread, as memory allows.

    Args:
        bytes_each: what the largest item takes while it is computed.
    """
    fitting = memory_bytes() // MEMORY_SHARE // max(bytes_each, 1)
    return max(1, min(default_threads(), fitting))


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None
) -> Iterator[Result]:
    """Yield the function's result for each item, in order; several are computed at the same time.

    At most one result more than there are threads is kept.

    Args:
        threads: number of threads; default: `default_threads`.
    """
    count = threads or default_threads()
    waiting: deque[Future[Result]] = deque()
    with one_thread(), ThreadPoolExecutor(count) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
