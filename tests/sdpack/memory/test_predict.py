from __future__ import annotations

from sdpack.domain.placement import Loading, Role
from sdpack.memory.predict import Footprint, predicted_peak

PARTS = {
    Role.TEXT_ENCODER: Footprint(20, 5, residue_bytes=1, session_bytes=7),
    Role.DENOISER: Footprint(60, 30, residue_bytes=2, session_bytes=7),
    Role.DECODER: Footprint(10, 50, session_bytes=7),
}


def test_resident_parts_are_all_there_with_their_sessions_while_one_runs() -> None:
    peak = predicted_peak(PARTS, Loading.RESIDENT, fixed_bytes=100)
    assert peak.role is Role.DECODER
    assert peak.weights == {Role.TEXT_ENCODER: 20, Role.DENOISER: 60, Role.DECODER: 10}
    assert peak.fixed_bytes == 100 + 3 * 7
    assert peak.bytes == 90 + 50 + 121


def test_phased_parts_come_alone_with_their_session_and_what_others_left() -> None:
    peak = predicted_peak(PARTS, Loading.PHASED, fixed_bytes=100)
    assert peak.role is Role.DENOISER
    assert peak.weights == {Role.DENOISER: 60}
    assert peak.fixed_bytes == 100 + 7 + 1
    assert peak.bytes == 60 + 30 + 108
