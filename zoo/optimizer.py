"""The optimizer of the zoo's networks: Muon for hidden matrices, AdamW for everything else.

Muon (Jordan et al. 2024) orthogonalizes each matrix's momentum; a convolution is the matrix of
its output channels. On the autoencoder it needs about half of AdamW's steps for the same loss.
Input, output and embedding layers, norms and biases stay with AdamW, as its authors advise.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

OUTER_LAYERS = ("embed", "conv_in", "conv_out", "quant_conv", "class_embedding")


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and not any(layer in name for layer in OUTER_LAYERS)


class AdamW:
    """AdamW over every trained parameter of a model; `step` takes the learning rate."""

    def __init__(self, model: nn.Module, weight_decay: float) -> None:
        self._adamw = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad],
            betas=(0.9, 0.99),
            weight_decay=weight_decay,
            fused=True,
        )

    def step(self, lr: float) -> None:
        for group in self._adamw.param_groups:
            group["lr"] = lr
        self._adamw.step()
        self._adamw.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return self._adamw.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._adamw.load_state_dict(state)


class MuonAdamW:
    """Both optimizers behind one; four-dimensional weights are seen as (outputs, rest) matrices.

    Args:
        model: its weights must not be moved or copied afterwards; Muon writes through views.
        weight_decay: decoupled, for both.
    """

    def __init__(self, model: nn.Module, weight_decay: float) -> None:
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._hidden = [p for n, p in named if is_hidden_matrix(n, p)]
        self._outer = [p for n, p in named if not is_hidden_matrix(n, p)]
        self._views = [nn.Parameter(_matrix(p.data, p)) for p in self._hidden]
        self._muon = torch.optim.Muon(
            self._views, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        self._adamw = torch.optim.AdamW(
            self._outer, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
        )

    def step(self, lr: float) -> None:
        for optimizer in (self._muon, self._adamw):
            for group in optimizer.param_groups:
                group["lr"] = lr
        for view, parameter in zip(self._views, self._hidden, strict=True):
            grad = parameter.grad
            view.grad = None if grad is None else _matrix(grad, parameter)
        self._muon.step()
        self._adamw.step()
        for parameter in (*self._hidden, *self._outer):
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._muon.load_state_dict(state["muon"])
        self._adamw.load_state_dict(state["adamw"])


def _matrix(tensor: Tensor, like: Tensor) -> Tensor:
    """The (outputs, rest) matrix of a weight or its gradient, in the memory order of `like`.

    Of the weight itself this is a view, channels last or not, so that a step through it moves
    the weight.
    """
    if tensor.ndim == 4 and not like.is_contiguous():
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(tensor.shape[0], -1)
