"""Bridges between text encoders and denoisers that were not trained for each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sdpack.errors import SourceError
from sdpack.export.finite import check_finite
from sdpack.export.pipeline_index import CONFIG

BRIDGE_WEIGHTS = "model.safetensors"


class BridgeModule(nn.Module):
    """Projects hidden states (B, T, encoder_width) to (B, T, cross_attention_dim)."""

    def __init__(self, encoder_width: int, cross_attention_dim: int) -> None:
        super().__init__()
        self.into = nn.Linear(encoder_width, cross_attention_dim)
        self.mix = nn.Linear(cross_attention_dim, cross_attention_dim)

    def forward(self, states: Tensor) -> Tensor:
        inner = self.into(states)
        return cast(Tensor, inner + self.mix(nn.functional.silu(inner)))


def load_bridge(folder: Path) -> BridgeModule:
    """Load the bridge in a folder, in fp32.

    Raises:
        SourceError: a file is missing or damaged, or holds NaN or infinity.
    """
    try:
        config = json.loads((folder / CONFIG).read_text())
        bridge = BridgeModule(int(config["encoder_width"]), int(config["cross_attention_dim"]))
        weights = load_file(folder / BRIDGE_WEIGHTS)
        bridge.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as cause:
        raise SourceError(f"{folder} holds no bridge: {cause}; restore its files") from cause
    check_finite(bridge, str(folder))
    return bridge.eval()


def save_bridge(bridge: BridgeModule, folder: Path) -> None:
    """Write a bridge's weights in fp16, and its two widths."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "encoder_width": bridge.into.in_features,
        "cross_attention_dim": bridge.into.out_features,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    weights = {k: v.half().contiguous().cpu() for k, v in bridge.state_dict().items()}
    save_file(weights, folder / BRIDGE_WEIGHTS)
