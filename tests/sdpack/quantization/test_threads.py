"""The limit to one thread, and layers computed side by side."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
import torch
from sdpack.quantization import threads
from sdpack.quantization.threads import in_order, one_thread, threads_for
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_the_limit_holds_in_threads_and_is_lifted_at_the_end() -> None:
    with threadpool_limits(2):
        torch.set_num_threads(2)

        def seen(_: int) -> tuple[set[int], int]:
            with one_thread():
                return blas_threads(), torch.get_num_threads()

        assert set(map(str, in_order(seen, range(6), 3))) == {str(({1}, 1))}
        assert blas_threads() == {2}
        assert torch.get_num_threads() == 2


def test_products_are_the_same_on_any_number_of_threads() -> None:
    rows = np.random.default_rng(0).standard_normal((4000, 640)).astype(np.float32)

    @one_thread()
    def gram() -> bytes:
        return bytes((rows.T @ rows).tobytes())

    products = set()
    for count in (1, 2, 4):
        with threadpool_limits(count):
            products.add(gram())
    assert len(products) == 1


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order_whichever_is_first(threads: int) -> None:
    def slow_at_first(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        return item * item

    assert list(in_order(slow_at_first, range(12), threads)) == [n * n for n in range(12)]
    assert list(in_order(slow_at_first, [], threads)) == []


def test_items_are_taken_only_as_results_are() -> None:
    taken: list[int] = []

    def items() -> object:
        for item in range(100):
            taken.append(item)
            yield item

    results = in_order(lambda item: item, items(), 2)  # type: ignore[arg-type,var-annotated]
    assert next(results) == 0
    assert len(taken) <= 4
    results.close()  # type: ignore[attr-defined]


def test_an_error_ends_it_and_frees_the_threads() -> None:
    before = torch.get_num_threads()

    def fail_at_three(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    with pytest.raises(ValueError, match="three"):
        list(in_order(fail_at_three, range(10), 2))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("bytes_each", "threads"), [(0, 8), (2**20, 8), (2 * 2**30, 4), (2**35, 1)]
)
def test_large_items_are_computed_by_fewer_threads(
    bytes_each: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdpack.quantization.threads.memory_bytes", lambda: 24 * 2**30)
    monkeypatch.setenv("SDPACK_THREADS", "8")
    assert threads_for(bytes_each) == threads


def test_a_library_that_is_loaded_later_is_limited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, ...]] = []

    class Controller(ThreadpoolController):
        def __init__(self) -> None:
            made.append(threads._loaded())
            super().__init__()

    monkeypatch.setattr(threads, "ThreadpoolController", Controller)
    threads._controller.cache_clear()
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    with one_thread(), one_thread():
        pass
    monkeypatch.setitem(sys.modules, "cv2", object())
    with one_thread():
        pass
    threads._controller.cache_clear()
    assert [("cv2" in loaded) for loaded in made] == [False, True]
