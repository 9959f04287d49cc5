from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sdpack.errors import SourceError
from sdpack.export.bridge import BridgeModule, load_bridge, save_bridge


def some_bridge() -> BridgeModule:
    torch.manual_seed(0)
    return BridgeModule(6, 10)


def test_states_are_projected_and_mixed() -> None:
    bridge, states = some_bridge(), torch.randn(2, 3, 6)
    weight, bias, mix, shift = (p.detach().numpy() for p in bridge.parameters())
    inner = states.numpy() @ weight.T + bias
    # SiLU: x times the logistic function of x.
    wanted = inner + (inner / (1 + np.exp(-inner))) @ mix.T + shift
    with torch.no_grad():
        assert np.allclose(bridge(states).numpy(), wanted, atol=1e-5)


def test_a_saved_bridge_is_the_same_to_fp16(tmp_path: Path) -> None:
    bridge = some_bridge()
    save_bridge(bridge, tmp_path / "bridge")
    loaded = load_bridge(tmp_path / "bridge")
    assert not loaded.training
    for name, weight in bridge.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.half().float())


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"{}"),
        ("config.json", json.dumps({"encoder_width": 7, "cross_attention_dim": 10}).encode()),
        ("model.safetensors", b"x"),
        ("model.safetensors", None),
    ],
)
def test_a_damaged_bridge_is_named_in_one_line(
    tmp_path: Path, file: str, content: bytes | None
) -> None:
    save_bridge(some_bridge(), tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(SourceError, match="holds no bridge") as caught:
        load_bridge(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
