import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from ddpm_core.evaluation.extractor import Yardstick, wavelet_extractor
from ddpm_core.evaluation.wavelets import wavelet_statistics

EXPECTED = [-0.89176, 0.07087, -4.48948, -4.55184, -4.0701, -4.54532, -3.99069, -4.58772, -3.90763, -4.57531]


@pytest.fixture(scope="module")
def measure(drawn):
    extractor = wavelet_extractor()
    yardstick = Yardstick(extractor(drawn(150, seed=1)), substitute=True)
    return lambda pictures: yardstick.measure(extractor(pictures))


def blurred(pictures, radius):
    return np.stack([np.asarray(Image.fromarray(p).filter(ImageFilter.GaussianBlur(radius))) for p in pictures])


def noisy(pictures, strength):
    noise = np.random.default_rng(0).normal(0, strength, pictures.shape)
    return (pictures + noise).round().clip(0, 255).astype(np.uint8)


def shifted(pictures, pixels):
    return np.pad(pictures, [(0, 0), (0, 0), (pixels, 0), (0, 0)], mode="edge")[:, :, :32]


@pytest.mark.parametrize(
    ("spoil", "strengths"),
    [(blurred, (0.7, 1, 2)), (noisy, (4, 8, 16)), (shifted, (3, 5, 8))],
    ids=["blurred", "noisy", "shifted"],
)
def test_the_more_real_pictures_are_spoilt_the_farther_they_are(measure, drawn, spoil, strengths):
    real = drawn(100, seed=2)
    measured = [measure(real), *(measure(spoil(real, s)) for s in strengths)]
    assert abs(measured[0]["kid_substitute"]) < 3 * measured[0]["kid_substitute_standard_error"]
    for name in ("kid_substitute", "frechet_substitute"):
        values = [row[name] for row in measured]
        assert values == sorted(values)
    clear = measured[1]["kid_substitute"] - measured[0]["kid_substitute"]
    assert clear > 3 * measured[1]["kid_substitute_standard_error"]


def test_pictures_put_together_of_two_halves_are_told_from_whole_ones(measure, drawn):
    real = drawn(100, seed=2)
    halves = np.concatenate([real[:, :, :16], np.roll(real, 1, axis=0)[:, :, 16:]], axis=2)
    assert measure(halves)["kid_substitute"] > 5 * abs(measure(real)["kid_substitute"])


def test_features_of_a_picture_do_not_depend_on_what_is_beside_it(drawn):
    pictures = torch.from_numpy(drawn(5, seed=3))
    alone = wavelet_statistics(pictures[2:3])
    torch.testing.assert_close(wavelet_statistics(pictures)[2:3], alone, rtol=1e-4, atol=1e-4)


def test_features_are_the_same_everywhere_and_for_ever():
    """A change of these numbers is a new version of the features: figures of the old one cannot be compared."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    picture = torch.stack([4 * x, 4 * y, (x * y) % 256], -1).to(torch.uint8)[None]
    features = wavelet_statistics(picture)[0]
    assert features.shape == (480,)
    torch.testing.assert_close(features[::48], torch.tensor(EXPECTED), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("side", [8, 16, 100, 256])
def test_any_side_gives_finite_features(side):
    features = wavelet_statistics(torch.zeros(2, side, side, 3, dtype=torch.uint8))
    assert features.isfinite().all()
