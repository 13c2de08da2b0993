"""nn/pca_init.py: an autoencoder that starts where principal components end; scikit-learn is the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from flawsmith.data import factory
from flawsmith.nn import builtin
from flawsmith.nn.pca_init import can_start, start_from_components


def pictures(first: int, count: int) -> torch.Tensor:
    made = [factory.make_random(first + i, size=96).image for i in range(count)]
    full = [x if x.ndim == 3 else np.repeat(x[..., None], 3, axis=2) for x in made]
    return torch.from_numpy(np.stack(full)).permute(0, 3, 1, 2).float() / 127.5 - 1


def flat(x: torch.Tensor) -> np.ndarray:
    """Patches of 8 x 8, by reshaping alone."""
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 8, 8, w // 8, 8).permute(0, 2, 4, 1, 3, 5).reshape(-1, c * 64).numpy()


@pytest.fixture(scope="module")
def started() -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(3)
    torch.set_num_threads(1)
    vae = builtin.autoencoder(96)
    assert can_start(vae)
    seen = pictures(0, 24)
    start_from_components(vae, seen)
    return vae.eval(), seen


@torch.no_grad()
def test_it_loses_what_principal_components_lose_and_no_more(started):
    vae, seen = started
    reference = PCA(builtin.LATENT_CHANNELS).fit(flat(seen).astype(np.float64))
    for some in (seen, pictures(500, 8)):
        patches = flat(some)
        wanted = reference.inverse_transform(reference.transform(patches))
        made = flat(vae.decode(vae.encode(some).latent).sample)
        least, ours = np.square(wanted - patches).mean(), np.square(made - patches).mean()
        assert ours < 1.03 * least + 1e-6, f"{ours} where principal components lose {least}"
        assert np.abs(made - wanted).max() < 0.06  # the decoder's norm is linear only nearly


@torch.no_grad()
def test_its_numbers_are_the_components_and_the_strong_ones_stay_stronger(started):
    vae, seen = started
    code = vae.encode(seen).latent.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
    wanted = PCA(builtin.LATENT_CHANNELS).fit(flat(seen).astype(np.float64)).transform(flat(seen))
    for ours, theirs in zip(code.T, wanted.T, strict=True):
        assert abs(np.corrcoef(ours, theirs)[0, 1]) > 0.99
    spread = code.std(0)
    assert (np.diff(spread) < 0).all() and np.square(spread).mean() == pytest.approx(1, rel=0.02)
    np.testing.assert_allclose(spread / spread[0], np.sqrt(wanted.std(0) / wanted.std(0)[0]), rtol=0.03)


def test_every_layer_can_still_learn(started):
    vae, seen = started
    vae.train().requires_grad_(True)
    (vae.decoder(vae.encoder(seen[:2])) - seen[:2]).square().mean().backward()
    idle = [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not idle
    vae.eval()


def test_a_narrow_one_cannot_start_so():
    assert not can_start(builtin.autoencoder(32))
