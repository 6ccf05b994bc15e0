import numpy as np
import pytest

from ddpm_core.errors import InvalidInput
from ddpm_core.evaluation.copies import find_copies


def test_a_copy_is_found_also_when_it_is_mirrored_or_grainy(drawn):
    reference = drawn(200, seed=1, side=64)
    grain = np.random.default_rng(0).normal(0, 10, reference.shape[1:])
    grainy = (reference[7] + grain).clip(0, 255).astype(np.uint8)
    samples = np.stack([reference[3], reference[5][:, ::-1], grainy, drawn(1, seed=2, side=64)[0]])
    copies = find_copies(samples, reference)
    assert copies.nearest[:3].tolist() == [3, 5, 7]
    assert copies.mirrored[:3].tolist() == [False, True, False]
    assert copies.distances[:2] == pytest.approx(0, abs=0.5)
    assert copies.distances[2] < copies.threshold < copies.distances[3]
    assert copies.suspicious == 0.75


def test_distances_are_grey_levels():
    reference = np.zeros((3, 16, 16, 3), np.uint8)
    reference[1], reference[2] = 100, 250
    copies = find_copies(np.full((1, 16, 16, 3), 110, np.uint8), reference)
    assert copies.nearest.tolist() == [1]
    assert copies.distances == pytest.approx([10])
    assert sorted(copies.real_distances) == pytest.approx([100, 100, 150])


def test_fresh_pictures_are_no_copies(drawn):
    assert find_copies(drawn(100, seed=2), drawn(400, seed=1)).suspicious <= 0.05


@pytest.mark.parametrize(
    ("count", "side", "says"), [(30, 24, "Samples of 32×32 cannot be compared with images of 24×24"), (1, 32, "2")]
)
def test_what_cannot_be_compared_is_refused(drawn, count, side, says):
    with pytest.raises(InvalidInput, match=says):
        find_copies(drawn(2, seed=0), drawn(count, seed=1, side=side))
