"""The optimizer of the zoo's networks: Muon for hidden matrices, AdamW for everything else.

Muon (Jordan et al. 2024) orthogonalizes each matrix's momentum; a convolution is the matrix of
its output channels. On the autoencoder it needs about half of AdamW's steps for the same loss.
Input, output and embedding layers, norms and biases stay with AdamW, as its authors advise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

OUTER_LAYERS = ("embed", "conv_in", "conv_out", "quant_conv", "class_embedding")
MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
ADAMW_RMS = 0.2
CHUNK = 2**18  # numbers orthogonalized together: about what a CPU core caches


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
    """Both optimizers in one; four-dimensional weights are treated as (outputs, rest) matrices.

    It computes the same as `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, but
    orthogonalizes matrices of the same shape together, in float32 and in the smaller dimension. On
    a CPU without fast bfloat16, a step takes a fraction of the time (benchmarks/muon_step.py).

    Args:
        model: its weights must not be moved or copied afterwards; Muon writes through views.
        weight_decay: decoupled, for both.
    """

    def __init__(self, model: nn.Module, weight_decay: float) -> None:
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._hidden = [p for n, p in named if is_hidden_matrix(n, p)]
        self._outer = [p for n, p in named if not is_hidden_matrix(n, p)]
        self._views = [_matrix(p.data, p) for p in self._hidden]
        self._momentum = [torch.zeros_like(view) for view in self._views]
        self._by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, view in enumerate(self._views):
            self._by_shape.setdefault(tuple(view.shape), []).append(i)
        self._weight_decay = weight_decay
        self._adamw = torch.optim.AdamW(
            self._outer, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
        )

    def step(self, lr: float) -> None:
        for group in self._adamw.param_groups:
            group["lr"] = lr
        self._adamw.step()
        with torch.no_grad():
            for indices in self._by_shape.values():
                self._step_matrices([i for i in indices if self._hidden[i].grad is not None], lr)
        for parameter in (*self._hidden, *self._outer):
            parameter.grad = None

    def _step_matrices(self, indices: Sequence[int], lr: float) -> None:
        """Step the matrices of these indices, all of one shape."""
        if not indices:
            return
        updates = []
        for i in indices:
            grad = _matrix(_grad(self._hidden[i]), self._hidden[i])
            self._momentum[i].lerp_(grad, 1 - MOMENTUM)
            updates.append(grad.lerp(self._momentum[i], MOMENTUM))
        stack = torch.stack(updates)
        rate = lr * ADAMW_RMS * math.sqrt(max(stack.shape[-2:]))
        turned = [orthogonalized(few) for few in stack.split(max(1, CHUNK // stack[0].numel()))]
        for i, update in zip(indices, torch.cat(turned), strict=True):
            self._views[i].mul_(1 - lr * self._weight_decay).add_(update, alpha=-rate)

    def state_dict(self) -> dict[str, Any]:
        return {"momentum": self._momentum, "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for mine, theirs in zip(self._momentum, state["momentum"], strict=True):
            mine.copy_(theirs)
        self._adamw.load_state_dict(state["adamw"])


def orthogonalized(matrices: Tensor) -> Tensor:
    """Return a stack of matrices (N, rows, columns) with their singular values brought close to 1.

    Newton-Schulz iteration (Jordan et al. 2024). Every iterate is a polynomial of the Gram
    matrix times the start, so for oblong matrices the iteration runs on (smaller, smaller)
    matrices alone and the start is multiplied once.
    """
    rows, columns = matrices.shape[-2:]
    if rows > columns:
        return orthogonalized(matrices.mT).mT
    x: Tensor = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    if columns < 1.5 * rows:  # multiplications: 17 rows + 2 columns against 5 rows + 10 columns
        for _ in range(NEWTON_SCHULZ_STEPS):
            x = _factor(x @ x.mT) @ x
        return x
    gram: Tensor = x @ x.mT
    total = factor = _factor(gram)
    for _ in range(NEWTON_SCHULZ_STEPS - 1):
        gram = factor @ gram @ factor
        factor = _factor(gram)
        total = factor @ total
    return total @ x


def _factor(gram: Tensor) -> Tensor:
    """Return the factor of one Newton-Schulz iteration, a I + b G + c G G, for a stack of G."""
    a, b, c = NEWTON_SCHULZ
    factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=-2, dim2=-1).add_(a)
    return factor


def _grad(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _matrix(tensor: Tensor, like: Tensor) -> Tensor:
    """Return the (outputs, rest) matrix of a weight or its gradient, in the memory order of `like`.

    For the weight itself, channels last or not, this is a view, so that a step on it changes the
    weight.
    """
    if tensor.ndim == 4 and not like.is_contiguous():
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(tensor.shape[0], -1)
