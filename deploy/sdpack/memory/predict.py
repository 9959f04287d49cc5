"""The predicted peak of a mix, by its placement.

    resident   everything's weights, and the scratch of whichever part is running
    phased     one part's weights and scratch at a time, and what the parts before it left behind

The parts run one after the other, so scratch memory is never needed twice at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdpack.domain.placement import Loading, Role
from sdpack.units import format_bytes


@dataclass(frozen=True)
class Footprint:
    """What one part takes on the device.

    Attributes:
        weight_bytes: while it is loaded.
        activation_bytes: more, while it runs.
        residue_bytes: what does not come back when it is let go, as heaps have it.
        session_bytes: what its runtime's libraries take for themselves while it is loaded.
    """

    weight_bytes: int
    activation_bytes: int
    residue_bytes: int = 0
    session_bytes: int = 0


@dataclass(frozen=True)
class Peak:
    """The moment a mix takes the most.

    Attributes:
        role: the part that runs then.
        weights: of each part loaded then.
        activation_bytes: of the part that runs.
        fixed_bytes: what the process takes whatever the mix, what the loaded parts' sessions do,
            and what parts before have left.
    """

    role: Role
    weights: Mapping[Role, int]
    activation_bytes: int
    fixed_bytes: int = 0

    @property
    def bytes(self) -> int:
        return sum(self.weights.values()) + self.activation_bytes + self.fixed_bytes

    def words(self) -> str:
        """The breakdown in one line."""
        parts = [f"{role.words} {format_bytes(b)}" for role, b in self.weights.items()]
        parts.append(f"scratch of the {self.role.words}")
        parts[-1] += f" {format_bytes(self.activation_bytes)}"
        if self.fixed_bytes:
            parts.append(f"process {format_bytes(self.fixed_bytes)}")
        return ", ".join(parts)


def predicted_peak(parts: Mapping[Role, Footprint], loading: Loading, fixed_bytes: int = 0) -> Peak:
    """The largest moment of a mix with these footprints, the parts in the order they run.

    Args:
        fixed_bytes: what the process takes whatever the mix.
    """
    if loading is Loading.RESIDENT:
        role = max(parts, key=lambda r: parts[r].activation_bytes)
        weights = {r: footprint.weight_bytes for r, footprint in parts.items()}
        sessions = sum(footprint.session_bytes for footprint in parts.values())
        return Peak(role, weights, parts[role].activation_bytes, fixed_bytes + sessions)
    peaks, left = [], fixed_bytes
    for role, part in parts.items():
        besides = left + part.session_bytes
        peaks.append(Peak(role, {role: part.weight_bytes}, part.activation_bytes, besides))
        left += part.residue_bytes
    return max(peaks, key=lambda peak: peak.bytes)
