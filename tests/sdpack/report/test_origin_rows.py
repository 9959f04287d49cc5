from __future__ import annotations

from sdpack.documents.origins import CandidateOrigin, MergedLora
from sdpack.report.origin_rows import origin_rows


def test_a_candidate_is_followed_by_its_loras_and_what_each_licence_says() -> None:
    lora = MergedLora(source="owner/lora", licence="cc-by-nc-4.0", scale=0.5)
    origins = {
        "denoiser d": CandidateOrigin(source="unet", licence="MIT", loras=(lora,)),
        "decoder v": CandidateOrigin(source="vae", licence="made up"),
    }
    assert list(origin_rows(origins)) == [
        ["denoiser d", "unet; MIT, allows commercial use"],
        ["LoRA of denoiser d", "owner/lora; cc-by-nc-4.0, forbids commercial use; scale 0.5"],
        ["decoder v", "vae; made up, unknown: read it"],
    ]
