from __future__ import annotations

import pytest
from sdpack.documents.manifest import Manifest
from sdpack.documents.profile import find_profile
from sdpack.domain.precision import Runtime
from sdpack.engines import onnxruntime
from sdpack.engines.detect import Gpu
from sdpack.runtime import choose
from sdpack.runtime.choose import chosen_runtime

from tests.sdpack.documents.test_bundle import manifest

AMPERE = Gpu("some card", 2**32, 0, "8.6", "580")


def bundle(profile: str, planned: bool) -> Manifest:
    made = manifest(profile=find_profile(profile).model_dump(by_alias=True))
    plan = "engines/some.plan" if planned else None
    parts = {role: part.model_copy(update={"plan": plan}) for role, part in made.parts.items()}
    return made.model_copy(update={"parts": parts})


def test_engines_run_only_on_the_gpu_they_were_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    made = bundle("4gb-gpu", planned=True)
    for card, chosen in (("8.6", Runtime.TENSORRT_RTX), ("6.1", Runtime.ONNXRUNTIME_CPU)):
        monkeypatch.setattr(choose, "gpus", lambda c=card: [Gpu("a card", 2**32, 0, c, "580")])
        assert chosen_runtime(made) is chosen
    monkeypatch.setattr(choose, "gpus", list)
    assert chosen_runtime(made) is Runtime.ONNXRUNTIME_CPU


def test_a_gpu_without_its_onnxruntime_draws_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "gpus", lambda: [AMPERE])
    made = bundle("h200", planned=False)
    made = made.model_copy(
        update={"profile": made.profile.model_copy(update={"runtime": Runtime.ONNXRUNTIME_CUDA})}
    )
    monkeypatch.setattr(onnxruntime, "offers", lambda runtime: not runtime.on_gpu)
    assert chosen_runtime(made) is Runtime.ONNXRUNTIME_CPU
    monkeypatch.setattr(onnxruntime, "offers", lambda _: True)
    assert chosen_runtime(made) is Runtime.ONNXRUNTIME_CUDA
