"""A Ray cluster of several raylets on this machine, each like a machine of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sdpack.domain.closing import Closing
from sdpack.workers.ray_cluster import RAY_SETTINGS

ROOT = Path(__file__).parents[1]


class RayNodes(Closing):
    """Raylets that are started one by one; the first is the head. All end with the block."""

    def __init__(self) -> None:
        os.environ.update(RAY_SETTINGS)
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster()

    @property
    def address(self) -> str:
        """The address of the cluster."""
        return str(self._cluster.address)

    def add(self, cpus: int = 1, gpus: int = 0, **environment: str) -> int:
        """Start a raylet; returns the number of its process.

        Args:
            environment: variables of its workers.
        """
        paths = [str(ROOT), str(ROOT / "deploy"), os.environ.get("PYTHONPATH", "")]
        variables = {"PYTHONPATH": os.pathsep.join(paths), **environment}
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            node = self._cluster.add_node(
                num_cpus=cpus, num_gpus=gpus, object_store_memory=80 * 2**20, wait=True
            )
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
        (raylet,) = node.all_processes["raylet"]
        return int(raylet.process.pid)

    def claim_python(self, version: str) -> None:
        """Have the cluster say that it was started with another version of Python."""
        import ray
        from ray._common.usage import usage_constants
        from ray._private import ray_constants

        client = self._cluster.head_node.get_gcs_client()
        metadata = {"ray_version": ray.__version__, "python_version": version}
        client.internal_kv_put(
            usage_constants.CLUSTER_METADATA_KEY,
            json.dumps(metadata).encode(),
            True,
            ray_constants.KV_NAMESPACE_CLUSTER,
        )

    def close(self) -> None:
        """End all raylets."""
        self._cluster.shutdown()
