"""The base class of all denoisers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Wrapper(nn.Module):
    """A model with its family's inputs as keyword arguments."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def _run(self, *arguments: Any, **more: Any) -> Tensor:
        output: Tensor = self.model(*arguments, **more, return_dict=False)[0]
        return output
