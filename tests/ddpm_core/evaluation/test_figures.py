import numpy as np
import pytest
import torch
from scipy import linalg

from ddpm_core.evaluation.figures import BLOCKS, FeatureSet


def normal(n, d=8, seed=0, mean=0.0, scale=1.0):
    return mean + scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def kid_by_definition(x, y):
    """Unbiased MMD² with (x·y/D + 1)³, as the paper writes it, pair by pair."""
    x, y = x.double().numpy(), y.double().numpy()
    n, m = len(x), len(y)
    kernel = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3  # noqa: E731
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    return (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1)) - 2 * xy.mean()


@pytest.mark.parametrize(("n", "m"), [(50, 50), (57, 203)])  # also where blocks are of unequal size
def test_the_kernel_distance_is_that_of_its_definition(n, m):
    x, y = normal(n, seed=1, mean=0.3), normal(m, seed=2)
    assert FeatureSet(y).compare(FeatureSet(x)).kid == pytest.approx(kid_by_definition(x, y), rel=1e-4)


def test_of_the_same_distribution_the_kernel_distance_is_nought_within_its_error():
    scores = []
    for seed in range(40):
        figures = FeatureSet(normal(200, seed=2 * seed)).compare(FeatureSet(normal(100, seed=2 * seed + 1)))
        scores.append(figures.kid / figures.kid_standard_error)
    assert abs(np.mean(scores)) < 0.5  # not pushed to one side: about 3 standard errors of this mean
    assert 0.6 < np.std(scores) < 1.7  # and as far from nought as the error says


def test_frechet_distance_is_that_of_two_gaussians():
    x, y = normal(400, seed=1, mean=0.5, scale=1.5), normal(300, seed=2)
    mean, its_mean = x.numpy().mean(0), y.numpy().mean(0)
    cov, its_cov = np.cov(x.numpy().T), np.cov(y.numpy().T)
    expected = ((mean - its_mean) ** 2).sum() + np.trace(cov + its_cov - 2 * linalg.sqrtm(cov @ its_cov).real)
    assert FeatureSet(y).compare(FeatureSet(x)).frechet == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_is_finite_with_fewer_images_than_features_and_nought_to_itself():
    x = FeatureSet(normal(30, d=64))
    assert x.compare(x).frechet == pytest.approx(0, abs=1e-4)
    assert 0 < x.compare(FeatureSet(normal(30, d=64, seed=1))).frechet < 200


def test_precision_falls_when_samples_leave_the_reference_and_recall_when_they_cover_part_of_it():
    reference = FeatureSet(torch.cat([normal(50, seed=1), normal(50, seed=2, mean=20)])[torch.randperm(100)])
    one_kind_only = reference.compare(FeatureSet(normal(100, seed=3)))
    assert one_kind_only.precision > 0.7
    assert one_kind_only.recall < 0.6
    half_are_strange = reference.compare(FeatureSet(torch.cat([normal(50, seed=4), normal(50, seed=5, mean=-20)])))
    assert 0.3 < half_are_strange.precision <= 0.5
    assert reference.compare(reference).precision == reference.compare(reference).recall == 1


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="19 images are too few; 20 are needed"):
        FeatureSet(normal(2 * BLOCKS - 1))
