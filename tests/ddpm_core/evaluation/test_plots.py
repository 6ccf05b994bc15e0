import numpy as np
import pytest
from PIL import Image

from ddpm_core import schedule
from ddpm_core.evaluation import plots
from ddpm_core.evaluation.copies import find_copies
from ddpm_core.evaluation.draw import draw as sample
from ddpm_core.plan import make_plan
from ddpm_core.sampling import Sampler


@pytest.fixture
def out(tmp_path):
    return tmp_path / "new" / "picture.png"


def colours(picture) -> np.ndarray:
    """Give every colour of a picture once, each as a number."""
    return np.unique(picture.reshape(-1, 3).astype(np.int32) @ (65536, 256, 1))


def contains(out, picture) -> bool:
    """Say whether every colour of a picture can be found in what was drawn."""
    with Image.open(out) as image:
        drawn = colours(np.asarray(image.convert("RGB")))
    wanted = colours(picture)
    return len(np.intersect1d(wanted, drawn)) > 0.9 * len(wanted)


def test_forward_strips_begin_with_the_picture_itself(drawn, out):
    picture = drawn(1, seed=0)[0]
    plots.draw_forward(picture, {"linear": schedule.linear(), "cosine": schedule.cosine()}, out)
    assert contains(out, picture)


def test_backward_strips_end_with_the_sample_of_the_seed(toy, out):
    plots.draw_backward(toy, Sampler.DDPM, 3, [4, 5], out)
    for picture in sample(toy.bundle, toy.denoiser, [4, 5], num_inference_steps=3):
        assert contains(out, picture)


def test_samples_are_drawn_a_row_a_cell(toy, out):
    rows = {
        f"ddim, {calls}": sample(toy.bundle, toy.denoiser, range(3), sampler=Sampler.DDIM, num_inference_steps=calls)
        for calls in (1, 2)
    }
    plots.draw_samples(rows, "toy", out)
    assert all(contains(out, picture) for pictures in rows.values() for picture in pictures)


def test_copies_are_drawn_the_most_alike_first(drawn, out):
    reference = drawn(60, seed=1)
    samples = np.concatenate([drawn(50, seed=2), reference[:1]])
    plots.draw_copies(samples, reference, find_copies(samples, reference), "toy", out)
    assert contains(out, reference[0])  # 51 samples are more than fit, and this one was the last


LINES = np.array([[31, 119, 180], [255, 127, 14], [44, 160, 44], [214, 39, 40]])
"""The colours of the first lines of a drawing, in their order."""


def test_schedules_are_drawn_a_line_each(out):
    plots.draw_schedules({"linear": (schedule.linear(), 64), "cosine": (schedule.cosine(), 256)}, out)
    assert [contains(out, colour) for colour in LINES] == [True, True, False, False]


@pytest.mark.parametrize(
    ("how", "lines"),
    [({"sampler": "ddim"}, 3), ({"sampler": "dpmpp_2m"}, 4)],  # A, B0 and shift; and B1
)
def test_a_plan_is_drawn_a_line_for_every_column_that_does_something(toy, out, how, lines):
    plots.draw_table(make_plan(toy.bundle, seed=0, **how).table, "a plan", out)
    assert sum(contains(out, colour) for colour in LINES) == lines


def test_guidance_is_drawn_too(toy, out):
    selfie = np.zeros((32, 32, 3), np.uint8)
    pictures = []
    for mode in ("celebrity", "faithful"):
        plots.draw_table(make_plan(toy.bundle, selfie, mode=mode, num_inference_steps=9, seed=0).table, "", out)
        pictures.append(out.read_bytes())
    assert pictures[0] != pictures[1]
