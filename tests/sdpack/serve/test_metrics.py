from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sdpack.serve import metrics
from sdpack.serve.metrics import STATM, Metrics, resident_bytes
from sdpack.units import MIB

from tests.sdpack.serve.clients import (
    GENERATE,
)


def test_what_is_counted(asking: httpx.Client) -> None:
    asking.post(GENERATE, json={"prompt": "a cat", "n": 2})
    asking.post(GENERATE, json={"prompt": "broken"})
    asking.post(GENERATE, json={})
    text = asking.get("/metrics").text
    for line in (
        "sdpack_images_total 2.0",
        'sdpack_failures_total{reason="BrokenPictureError"} 1.0',
        "sdpack_queue_depth 0.0",
        'sdpack_batch_size_bucket{le="2.0"} 2.0',
        'sdpack_responses_total{status="400"} 1.0',
        "sdpack_memory_budget_bytes 100.0",
        "sdpack_ready 1.0",
    ):
        assert line in text
    memory = next(line for line in text.splitlines() if line.startswith("sdpack_memory_bytes{"))
    assert float(memory.split()[1]) > 2**20


@pytest.mark.skipif(not STATM.exists(), reason="only Linux says it there")
def test_resident_memory_grows_by_what_is_written() -> None:
    before = resident_bytes()
    held = bytearray(b"x" * (64 * MIB))
    assert resident_bytes() - before > 60 * MIB
    assert len(held) == 64 * MIB


def test_resident_memory_is_zero_if_the_system_does_not_report_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "STATM", tmp_path / "nothing")
    assert resident_bytes() == 0


def test_the_exposition_is_read_by_prometheus_own_parser() -> None:
    counted = Metrics(4, 100, device_bytes=lambda: 7.0)
    counted.batch(3)
    counted.failed("timeout", 2)
    counted.ready(lambda: True)
    counted.queue_depth(lambda: 5)
    text = counted.exposition().decode()
    read = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert read["sdpack_queue_depth",] == 5
    assert read["sdpack_failures_total", "timeout"] == 2
    assert read["sdpack_memory_bytes", "device"] == 7
    assert read["sdpack_ready",] == 1
    buckets = [read["sdpack_batch_size_bucket", f"{n}.0"] for n in (1, 2, 3, 4)]
    assert buckets == [0, 0, 1, 1]
