"""Check of a module's weights for NaN and infinity, before the module is exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdpack.domain.finite import counted_words
from sdpack.errors import SourceError

if TYPE_CHECKING:
    from torch import nn


def check_finite(module: nn.Module, where: str, spare: tuple[str, ...] = ()) -> None:
    """Check that no tensor of a module holds NaN or infinity.

    Args:
        module: the module.
        where: start of the message, such as the checkpoint's folder.
        spare: prefixes of tensors that are not needed, and not checked.

    Raises:
        SourceError: a tensor holds some; gives its name, and the number of NaN and infinities.
    """
    broken = []
    for name, tensor in module.state_dict().items():
        if name.startswith(spare) or not tensor.is_floating_point() or tensor.isfinite().all():
            continue
        nan, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
        broken.append(f"{name} holds {counted_words(nan, infinite, tensor.numel())}")
    if broken:
        more = f" (and {len(broken) - 1} more tensors hold some)" if len(broken) > 1 else ""
        raise SourceError(
            f"{where}: the tensor {broken[0]}{more}; download the weights again, or choose others"
        )
