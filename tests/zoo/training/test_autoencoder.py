import numpy as np
import pytest
import torch

from zoo.training import autoencoder


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    blocks = torch.randint(256, (12, 8, 8, 3), generator=g, dtype=torch.uint8)
    return blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)


def test_normalizing_latents_changes_no_reconstruction(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    vae = autoencoder.new_kl().eval()
    before = autoencoder.encode(vae, images)
    with torch.no_grad():
        drawn = vae.decode(before).sample
        spread = (
            vae.encode(autoencoder.to_unit(images)).latent_dist.std
            / before.std((0, 2, 3))[:, None, None]
        )
        autoencoder.normalize_latents(vae, before)
        after = autoencoder.encode(vae, images)
        again = vae.encode(autoencoder.to_unit(images)).latent_dist.std
        assert torch.allclose(after.mean((0, 2, 3)), torch.zeros(16), atol=1e-4)
        assert torch.allclose(after.std((0, 2, 3)), torch.ones(16), atol=1e-4)
        assert torch.allclose(vae.decode(after).sample, drawn, atol=1e-3)
        assert torch.allclose(again, spread, rtol=1e-3)


def test_bytes_survive_the_way_to_unit_range_and_back(images: torch.Tensor) -> None:
    assert torch.equal(autoencoder.to_bytes(autoencoder.to_unit(images)), images)


def test_psnr_is_that_of_its_definition() -> None:
    a = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    b = a.clone()
    b[0, 0, 0, 0] = 48
    expected = 10 * np.log10(255**2 / (48**2 / 48))
    assert autoencoder.psnr(a, b).item() == pytest.approx(expected, rel=1e-5)


def test_both_decoders_take_the_same_latents() -> None:
    latents = torch.randn(2, 16, 8, 8)
    for decoder in (autoencoder.new_kl(), autoencoder.new_tiny()):
        assert autoencoder.decode(decoder.eval(), latents).shape == (2, 64, 64, 3)
