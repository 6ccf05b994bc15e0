"""Each figure of `ddpm evaluate likeness` on pictures whose figures are known."""

import io
import math

import numpy as np
import pytest
import skimage.data
import torch
from diffusers import UNet2DModel
from PIL import Image
from skimage.metrics import structural_similarity

from ddpm_core.data.images import ImageSet
from ddpm_core.domain import Domain
from ddpm_core.errors import InvalidInput
from ddpm_core.evaluation.likeness.activations import deepest, denoiser_extractor
from ddpm_core.evaluation.likeness.copying import distances, threshold
from ddpm_core.evaluation.likeness.landmarks import Landmarks, geometry
from ddpm_core.evaluation.likeness.resemblance import cosine, low_pass_distance, ssim
from ddpm_core.faces import FaceFinder, align, decode
from ddpm_core.guidance import low_pass
from ddpm_core.pixels import to_pixels, to_tensor
from ddpm_core.unet import AttentionUNet

PERSON = r"^(.+)_\d$"


def image_set(pixels, names, digests=None):
    return ImageSet(pixels, tuple(names), tuple(digests or [f"{i:02}" for i in range(len(names))]))


def test_the_low_pass_distance_counts_what_is_coarse_and_leaves_out_what_is_fine(drawn):
    pictures = drawn(4, seed=0, side=64).clip(30, 200)
    assert low_pass_distance(pictures, pictures, 16) == pytest.approx(0)
    assert low_pass_distance(pictures + np.uint8(51), pictures, 16) == pytest.approx(0.4)
    board = (20 * ((np.indices((64, 64)).sum(0) % 2) * 2 - 1))[..., None]
    fine = (pictures + board).astype(np.uint8)
    assert low_pass_distance(fine, pictures, 16).max() < 1e-3
    assert low_pass_distance(fine, pictures, 64) == pytest.approx(20 / 127.5)


@pytest.mark.parametrize("side", [32, 64])
def test_structural_similarity_is_that_of_scikit_image(drawn, side):
    pictures, others = drawn(5, seed=0, side=side), drawn(5, seed=1, side=side)
    luma = [np.einsum("bhwc,c->bhw", p / 127.5 - 1, (0.299, 0.587, 0.114)) for p in (pictures, others)]
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 2}
    expected = [structural_similarity(a, b, **settings) for a, b in zip(*luma, strict=True)]
    assert ssim(pictures, others) == pytest.approx(expected, abs=1e-6)
    assert ssim(pictures, pictures) == pytest.approx(1)


def test_structural_similarity_of_pictures_smaller_than_its_window(drawn):
    pictures = drawn(2, seed=0, side=8)
    assert ssim(pictures, pictures) == pytest.approx(1)


def test_the_cosine_is_of_each_with_its_own():
    assert cosine(torch.eye(2) * 3, torch.tensor([[2.0, 0], [1, -1]])) == pytest.approx([1, -(0.5**0.5)])


def test_the_target_itself_is_at_distance_0_also_mirrored(drawn):
    pictures = drawn(3, seed=0, side=64)
    assert distances(pictures, pictures) == pytest.approx(0)
    assert distances(np.ascontiguousarray(pictures[:, :, ::-1]), pictures) == pytest.approx(0)
    assert (distances(pictures, drawn(3, seed=9, side=64)) > 0.7).all()


def test_a_copy_that_was_darkened_tinted_or_compressed_is_still_a_copy(face):
    def saved(quality):
        kept = io.BytesIO()
        Image.fromarray(face).save(kept, "JPEG", quality=quality)
        return np.array(Image.open(kept))

    changed = np.stack([face // 2, face // 2 + 100, saved(30), (face * [1, 0.8, 0.6]).astype(np.uint8)])
    assert (distances(changed, np.stack([face] * 4)) < 0.15).all()


def test_what_is_coarse_alone_is_no_copy(face, drawn):
    """The same pose, light and colours with other detail."""
    other = drawn(1, seed=0, side=64)[0]
    coarse = [low_pass(to_tensor(picture), 16) for picture in (face, other)]
    mixed = to_pixels(coarse[0] + to_tensor(other) - coarse[1])
    assert low_pass_distance(mixed[None], face[None], 16) < 0.05
    assert distances(mixed[None], face[None]) > 0.7


def test_the_threshold_is_what_photographs_of_one_person_have_in_common(drawn):
    """Two of `a` are alike, one of them mirrored; those of different persons count for nothing."""
    pixels = drawn(4, seed=0, side=64)
    grain = drawn(1, seed=5, side=64)[0]
    pixels[1] = (0.7 * pixels[0][:, ::-1] + 0.3 * grain).astype(np.uint8)
    pixels[2] = pixels[0]
    limit = threshold(image_set(pixels, ["a_0", "a_1", "b_0", "c_0"]), PERSON)
    assert limit == pytest.approx(distances(pixels[:1], pixels[1:2])[0])
    assert 0.01 < limit < 0.7


def test_a_file_that_is_there_twice_is_one_photograph(drawn):
    pixels = drawn(3, seed=0, side=64)
    pixels[1] = pixels[0]
    known = image_set(pixels, ["a_0", "a_1", "a_2"], ["same", "same", "other"])
    assert threshold(known, PERSON) == pytest.approx(distances(pixels[:1], pixels[2:])[0])


def test_without_two_photographs_of_one_person_there_is_no_threshold(drawn):
    with pytest.raises(InvalidInput, match="No person has two photographs") as caught:
        threshold(image_set(drawn(3, seed=0), ["a_0", "b_0", "c_0"]), PERSON)
    assert caught.value.field == "person_pattern"


@pytest.fixture(scope="module")
def face():
    kept = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(kept, "PNG")
    return align(decode(kept.getvalue()), 64, FaceFinder()).pixels


def test_landmarks_are_where_the_alignment_puts_them(face):
    (points,) = Landmarks(Domain.HUMAN_FACE).find(face[None])
    assert points == pytest.approx(np.array([[0.375, 0.472], [0.625, 0.472], [0.5, 0.75]]), abs=0.03)


def test_a_face_that_is_moved_is_as_far_as_it_was_moved(face):
    moved = np.roll(face, 4, 1)  # of 64, where the eyes are 16 apart
    points = Landmarks(Domain.HUMAN_FACE).find(np.stack([face, moved]))
    assert geometry(points[:1], points[:1]) == pytest.approx(0)
    assert geometry(points[1:], points[:1]) == pytest.approx(0.25, abs=0.06)


def test_where_there_is_no_face_there_is_no_distance(face):
    noise = np.random.default_rng(0).integers(0, 256, face.shape).astype(np.uint8)
    points = Landmarks(Domain.HUMAN_FACE).find(np.stack([face, noise]))
    assert np.isnan(points[1]).all()
    assert math.isnan(geometry(points[:1], points[1:])[0])


def test_an_animals_face_is_none_for_a_model_of_humans():
    kept = io.BytesIO()
    Image.fromarray(skimage.data.chelsea()).save(kept, "PNG")
    cat = align(decode(kept.getvalue()), 128, FaceFinder("cat_face")).pixels
    assert np.isnan(Landmarks(Domain.HUMAN_FACE).find(cat[None])).all()
    assert not np.isnan(Landmarks(Domain.CAT_FACE).find(cat[None])).any()


def unet():
    kinds = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    return UNet2DModel(sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, **kinds)


@pytest.mark.parametrize(
    ("network", "width", "side"),
    [(unet(), 16, 8), (AttentionUNet(3, (8, 16, 16), 32, heads=2), 16, 4)],
    ids=["diffusers", "plain"],
)
def test_the_deepest_stage_is_the_last_one_where_the_picture_is_smallest(network, width, side):
    run = lambda: network(torch.zeros(1, 3, 16, 16), torch.tensor([5]))  # noqa: E731
    stage = deepest(network.eval(), run)
    seen = []
    stage.register_forward_hook(lambda _module, _given, out: seen.append(out.shape))
    run()
    assert seen == [(1, width, side, side)]


def test_a_models_features_are_the_same_for_a_mirrored_picture_and_differ_between_pictures(toy, drawn):
    extract = denoiser_extractor(toy)
    pictures = drawn(3, seed=0)
    features = extract(pictures)
    assert features.shape == (3, 3)  # the toy has one layer of 3 channels
    assert torch.allclose(extract(np.ascontiguousarray(pictures[:, :, ::-1])), features)
    assert torch.allclose(extract(pictures[:1]), features[:1])
    assert torch.cdist(features, features).fill_diagonal_(1).min() > 1e-4
