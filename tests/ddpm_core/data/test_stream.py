import numpy as np
import pytest
import torch

from ddpm_core.data.stream import Stream


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)


def test_an_epoch_shows_every_chosen_image_once_and_the_next_in_another_order(pixels):
    stream = Stream(pixels, [1, 3, 5, 7, 8, 9], seed=3)
    first, second = stream.order(0, 6).tolist(), stream.order(6, 6).tolist()
    assert sorted(first) == sorted(second) == [1, 3, 5, 7, 8, 9]
    assert first != second


def test_any_part_of_the_order_is_known_from_its_position_alone(pixels):
    whole = Stream(pixels, range(10), seed=3).order(0, 50)
    np.testing.assert_array_equal(Stream(pixels, range(10), seed=3).order(23, 12), whole[23:35])


def test_the_seed_makes_the_order(pixels):
    assert Stream(pixels, range(10), seed=1).order(0, 10).tolist() != Stream(pixels, range(10)).order(0, 10).tolist()


def test_a_batch_may_be_larger_than_the_data(pixels):
    assert Stream(pixels, [4]).batch(0, 3).shape == (3, 3, 8, 8)


def test_bytes_become_minus_one_to_one(pixels):
    pixels[2] = 0
    pixels[3] = 255
    batch = Stream(pixels, range(10)).images(np.array([2, 3]))
    assert (batch[0] == -1).all()
    assert (batch[1] == 1).all()


def test_a_flip_mirrors_about_half_of_the_images(pixels):
    stream = Stream(pixels, [0], flip=True)
    plain = stream.images(np.array([0]))[0]
    torch.manual_seed(0)
    batch = stream.batch(0, 200)
    mirrored = [bool(torch.equal(image, plain.flip(-1))) for image in batch]
    assert all(m or torch.equal(image, plain) for m, image in zip(mirrored, batch, strict=True))
    assert 70 < sum(mirrored) < 130


def test_a_crop_keeps_the_size_shows_a_part_and_stays_in_range(pixels):
    ramp = np.broadcast_to(np.arange(8, dtype=np.uint8)[None, None, :, None] * 30, (1, 8, 8, 3))
    torch.manual_seed(0)
    batch = Stream(ramp, [0], crop=0.5).batch(0, 50)
    widths = (batch[..., -1] - batch[..., 0]).mean(dim=(1, 2))
    whole = 7 * 30 / 127.5
    assert batch.shape == (50, 3, 8, 8)
    assert (widths < whole).all()
    assert (widths > 0.4 * whole).all()
    assert widths.std() > 0.1


def test_augmentation_comes_from_torchs_generator(pixels):
    stream = Stream(pixels, range(10), flip=True, crop=0.8)
    batches = []
    for _ in range(2):
        torch.manual_seed(5)
        batches.append(stream.batch(4, 6))
    assert torch.equal(*batches)
