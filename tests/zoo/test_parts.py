import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from zoo import parts
from zoo.errors import WeightsError
from zoo.evaluation import evaluate
from zoo.training import autoencoder
from zoo.training import text_encoder as text

LIMIT = 69_000_000  # 64 MB, and the second judge
PARAMETERS = {  # about what each size is meant to have, and how far it may be off
    "text_encoder/s": 0.5e6,
    "text_encoder/m": 2e6,
    "text_encoder/l": 6e6,
    "denoiser/s": 1e6,
    "denoiser/m": 4e6,
    "denoiser/l": 10e6,
}


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(parts.PARTS_FOLDER / "bridge", tmp_path / "bridge")
    shutil.copy(parts.PARTS_FOLDER / parts.CHECKSUMS, tmp_path)
    return tmp_path


def test_all_weights_are_half_precision_and_fit_the_limit() -> None:
    sizes = evaluate.part_sizes()
    assert sum(part.bytes for part in sizes) <= LIMIT
    for path in parts.PARTS_FOLDER.rglob("*.safetensors"):
        floats = [t for t in load_file(path).values() if t.is_floating_point()]
        assert {t.dtype for t in floats} == {torch.float16}, path


@pytest.mark.parametrize(("part", "meant"), PARAMETERS.items())
def test_sizes_are_as_meant(part: str, meant: float) -> None:
    found = {p.name: p.parameters for p in evaluate.part_sizes()}
    assert found[part] == pytest.approx(meant, rel=0.2)


@pytest.mark.parametrize("size", parts.SIZES)
def test_text_encoders_and_denoisers_load_with_the_public_classes(size: parts.Size) -> None:
    encoder, denoiser = parts.load_text_encoder(size), parts.load_denoiser(size)
    states = encoder(torch.zeros(2, text.MAX_TOKENS, dtype=torch.long)).last_hidden_state
    assert states.dtype == torch.float32
    bridged = parts.load_bridge(size, size)(states)
    assert bridged.shape == (2, text.MAX_TOKENS, denoiser.config.cross_attention_dim)
    noisy = torch.randn(2, 16, 8, 8)
    assert denoiser(noisy, 5, bridged).sample.shape == noisy.shape


@pytest.mark.parametrize("name", parts.DECODERS)
def test_decoders_load_and_agree_on_the_latent_space(name: parts.DecoderName) -> None:
    real = evaluate.read_real("unseen_pairs")[:24]
    encoder = parts.load_decoder("kl")
    latents = autoencoder.encode(encoder, real)
    assert latents.shape == (24, 16, 8, 8)
    seen = autoencoder.decode(parts.load_decoder(name), latents)
    assert autoencoder.psnr(seen, real).mean() > 23


def test_the_tiny_decoder_has_at_most_a_quarter_of_the_bytes() -> None:
    kl, tiny = parts.load_decoder("kl"), parts.load_decoder("tiny")
    big = sum(p.numel() for m in (kl.decoder, kl.post_quant_conv) for p in m.parameters())
    small = sum(p.numel() for p in tiny.decoder.parameters())
    assert 4 * small <= big


def test_reconstruction_is_as_good_as_the_card_says() -> None:
    real = torch.cat([evaluate.read_real(name)[::4] for name in evaluate.EVALUATED])
    seen = evaluate.decoder_psnr(real)
    assert seen["kl"].value >= 28
    assert seen["tiny"].value >= 25


def test_every_bridge_is_there() -> None:
    for encoder in parts.SIZES:
        for denoiser in parts.SIZES:
            assert parts.load_bridge(encoder, denoiser).into.in_features > 0


def test_the_scheduler_loads_and_ends_within_twenty_steps() -> None:
    scheduler = parts.load_scheduler()
    scheduler.set_timesteps(16)
    assert len(scheduler.timesteps) == 16


def test_a_file_cut_short_is_named_with_the_way_out(copied: Path) -> None:
    path = copied / "bridge/s-s/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"s-s/model\.safetensors .*git checkout"):
        parts.load_bridge("s", "s", copied)


def test_a_changed_byte_is_noticed(copied: Path) -> None:
    path = copied / "bridge/s-s/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="has SHA-256"):
        parts.load_bridge("s", "s", copied)


def test_a_missing_file_is_named(copied: Path) -> None:
    (copied / "bridge/s-s/model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors is missing"):
        parts.load_bridge("s", "s", copied)


def test_an_unknown_part_is_refused_with_the_known_ones(copied: Path) -> None:
    with pytest.raises(WeightsError, match="there is no part 'denoiser/xl'"):
        parts.verify("denoiser/xl", copied)


def test_a_folder_without_checksums_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="SHA256SUMS is missing"):
        parts.verify("judge", tmp_path)


def test_the_shipped_checksums_cover_every_shipped_file() -> None:
    listed = set(parts._checksums(parts.PARTS_FOLDER))
    there = {
        p.relative_to(parts.PARTS_FOLDER).as_posix()
        for p in parts.PARTS_FOLDER.rglob("*")
        if p.is_file() and p.name != parts.CHECKSUMS
    }
    assert listed == there


def test_no_config_names_the_machine_it_was_made_on() -> None:
    configs = sorted(parts.PARTS_FOLDER.rglob("*.json"))
    assert len(configs) > 10
    for path in configs:
        assert "_name_or_path" not in path.read_text(), path
