"""Seconds a Muon step takes, ours against torch's, on each denoiser: python -m benchmarks.muon_step

The two run in turn in one process, `--rounds` times; the table shows medians and their ratio.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import click
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measured_on import machine_and_versions
from zoo.training.denoiser import new_denoiser
from zoo.training.muon import MuonAdamW, is_hidden_matrix


def seconds(step: Callable[[], None]) -> float:
    since = time.perf_counter()
    step()
    return time.perf_counter() - since


def steppers(size: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return one step of our Muon and one of torch's, on the hidden matrices of a denoiser."""
    model = new_denoiser(size)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_hidden_matrix(name, parameter))
    hidden = [p for p in model.parameters() if p.requires_grad]
    views = [torch.nn.Parameter(p.detach().reshape(len(p), -1).clone()) for p in hidden]
    grads = [torch.randn_like(p) for p in hidden]
    # AdamW, which takes what Muon does not, refuses an empty list.
    first_convolution = model.conv_in
    first_convolution.bias.requires_grad_(True)
    ours = MuonAdamW(model, 0.01)
    theirs = torch.optim.Muon(views, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")

    def our_step() -> None:
        for parameter, grad in zip(hidden, grads, strict=True):
            parameter.grad = grad
        ours.step(1e-3)

    def their_step() -> None:
        for view, grad in zip(views, grads, strict=True):
            view.grad = grad.reshape(len(grad), -1)
        theirs.step()

    return our_step, their_step


@click.command()
@click.option("--rounds", default=9, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(rounds: int, threads: int) -> None:
    """Print one table."""
    torch.set_num_threads(threads)
    table = Table(title="Muon step, seconds (median)")
    for column in ("denoiser", "zoo.optimizer", "torch.optim.Muon", "torch / ours"):
        table.add_column(column, justify="right")
    for size in ("s", "m", "l"):
        pair = steppers(size)
        taken = [[seconds(step) for step in pair] for _ in range(rounds)]
        ours, theirs = (statistics.median(column) for column in zip(*taken, strict=True))
        ratio = statistics.median(b / a for a, b in taken)
        table.add_row(size, f"{ours:.3f}", f"{theirs:.3f}", f"{ratio:.1f}")
    console = Console()
    console.print(table)
    console.print(f"{machine_and_versions('torch')}; {threads} thread(s), {rounds} rounds")


if __name__ == "__main__":
    main()
