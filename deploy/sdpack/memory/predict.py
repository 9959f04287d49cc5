"""The predicted peak of a mix, by its placement.

    resident   weights of all parts, and scratch memory of the running part
    phased     weights and scratch memory of one part, and memory that earlier parts did not release

The parts run one after the other, so only one needs scratch memory at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdpack.domain.placement import Loading, Role
from sdpack.units import format_bytes


@dataclass(frozen=True)
class Footprint:
    """Memory use of one part on the device.

    Attributes:
        weight_bytes: while the part is loaded.
        activation_bytes: in addition, while it runs.
        residue_bytes: memory that is not released when the part is unloaded, such as heap memory.
        session_bytes: overhead of the runtime's libraries while the part is loaded.
    """

    weight_bytes: int
    activation_bytes: int
    residue_bytes: int = 0
    session_bytes: int = 0


@dataclass(frozen=True)
class Peak:
    """The peak memory of a mix, and its breakdown.

    Attributes:
        role: the part that runs at the peak.
        weights: weight bytes of each loaded part.
        activation_bytes: scratch memory of the running part.
        fixed_bytes: memory of the process itself, overhead of loaded sessions, and residue of
            earlier parts.
    """

    role: Role
    weights: Mapping[Role, int]
    activation_bytes: int
    fixed_bytes: int = 0

    @property
    def bytes(self) -> int:
        return sum(self.weights.values()) + self.activation_bytes + self.fixed_bytes

    def words(self) -> str:
        """Format the breakdown in one line."""
        parts = [f"{role.words} {format_bytes(b)}" for role, b in self.weights.items()]
        parts.append(f"scratch of the {self.role.words}")
        parts[-1] += f" {format_bytes(self.activation_bytes)}"
        if self.fixed_bytes:
            parts.append(f"process {format_bytes(self.fixed_bytes)}")
        return ", ".join(parts)


def predicted_peak(parts: Mapping[Role, Footprint], loading: Loading, fixed_bytes: int = 0) -> Peak:
    """Predict the peak of a mix.

    Args:
        parts: footprints of its parts, in the order in which they run.
        loading: whether all parts stay loaded.
        fixed_bytes: memory of the process itself.
    """
    if loading is Loading.RESIDENT:
        role = max(parts, key=lambda r: parts[r].activation_bytes)
        weights = {r: footprint.weight_bytes for r, footprint in parts.items()}
        sessions = sum(footprint.session_bytes for footprint in parts.values())
        return Peak(role, weights, parts[role].activation_bytes, fixed_bytes + sessions)
    peaks, unreleased = [], fixed_bytes
    for role, part in parts.items():
        fixed = unreleased + part.session_bytes
        peaks.append(Peak(role, {role: part.weight_bytes}, part.activation_bytes, fixed))
        unreleased += part.residue_bytes
    return max(peaks, key=lambda peak: peak.bytes)
