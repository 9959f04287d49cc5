"""Ray itself, on this machine."""

from __future__ import annotations

import socket

import pytest
from sdpack.errors import WorkerError
from sdpack.workers import ray_cluster
from sdpack.workers.ray_cluster import Node, WorkerNeeds, connected, room

from tests.ray_nodes import RayNodes

GIB = 2**30


@pytest.mark.parametrize(
    ("nodes", "has_gpu", "workers"),
    [
        ([Node(8, 0, 64 * GIB)], False, 4),
        ([Node(8, 0, 9 * GIB)], False, 2),
        ([Node(8, 0, 64 * GIB), Node(4, 1, 64 * GIB)], False, 5),
        ([Node(2, 1, 64 * GIB)], False, 1),
        ([Node(8, 0, 64 * GIB), Node(4, 1, 64 * GIB)], True, 1),
        ([Node(1, 4, 64 * GIB)], True, 0),
        ([], False, 0),
    ],
)
def test_cpus_memory_and_gpus_limit_the_workers(
    nodes: list[Node], has_gpu: bool, workers: int
) -> None:
    assert room(nodes, WorkerNeeds(2, 4 * GIB), has_gpu) == workers


def test_a_cluster_that_is_started_ends_with_the_connection() -> None:
    with connected(None, 3):
        (node,) = ray_cluster.nodes()
        assert node.cpus == 3
    import ray  # only now, as it reads its settings when it is imported

    assert not ray.is_initialized()


def test_a_cluster_of_another_python_is_refused_in_one_line() -> None:
    with RayNodes() as nodes:
        nodes.add()
        nodes.claim_python("3.10.1")
        refused = pytest.raises(WorkerError, match=r"Version mismatch: .*Python: 3\.10\.1 ")
        with refused as caught, connected(nodes.address):
            pass
    assert "\n" not in str(caught.value)


def _unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_refused_at_once(scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{_unused_port()}"
    refused = pytest.raises(WorkerError, match=f"{address} cannot be used: nothing listens there")
    with refused, connected(address):
        pass


@pytest.mark.parametrize("address", ["head", "ray://head", "http://head:1", "head:port"])
def test_a_text_that_is_not_an_address_is_refused(address: str) -> None:
    refused = pytest.raises(WorkerError, match="is not the address of a Ray cluster; write")
    with refused, connected(address):
        pass
