"""How parts are opened for evaluation; what opens them is replaced."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision, Runtime
from sdpack.pack.planning.mix import Variant
from sdpack.pack.selection import pipeline_specs
from sdpack.pack.selection.pipeline_specs import PipelineSpecs

CPU, CUDA, RTX = Runtime.ONNXRUNTIME_CPU, Runtime.ONNXRUNTIME_CUDA, Runtime.TENSORRT_RTX


@pytest.mark.parametrize(
    ("profile", "drawn_on", "emulate"),
    [(CPU, CPU, False), (RTX, CPU, True), (RTX, CUDA, True), (CUDA, CUDA, False)],
)
def test_parts_are_opened_where_the_request_draws(
    profile: Runtime, drawn_on: Runtime, emulate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[Path, Runtime, bool]] = []

    def load(path: Path, runtime: Runtime, *, emulate: bool) -> str:
        opened.append((path, runtime, emulate))
        return "session"

    graph, denoiser = Path("denoiser.onnx"), Variant(Role.DENOISER, "m", Precision.W8)
    request = SimpleNamespace(drawn_on=drawn_on, runtime=profile)
    toolchain: Any = SimpleNamespace(
        context=SimpleNamespace(store=None, request=request),
        variants=SimpleNamespace(
            runnable=lambda _: graph,
            built=lambda _: SimpleNamespace(artifact=SimpleNamespace(content="hash")),
        ),
        candidates=SimpleNamespace(parameters=lambda *_: 10),
        samplers=None,
        sources=None,
        tokenizers=None,
    )
    monkeypatch.setattr(pipeline_specs, "onnxruntime", SimpleNamespace(load=load))
    monkeypatch.setattr(pipeline_specs, "fused_attention_graph", lambda artifact: artifact)
    part = PipelineSpecs(toolchain, with_reference=False).part(denoiser)
    session: Any = part.load()
    assert session == "session"
    assert opened == [(graph, drawn_on, emulate)]
