"""What a face network sees, on photographs that scikit-image brings, and what is made of it."""

import io
from importlib.util import find_spec

import numpy as np
import pytest
import skimage.data
from PIL import Image

from ddpm_core.evaluation import face_figures, face_network
from ddpm_core.evaluation.face_figures import FaceFigures, network_for, persons_apart
from ddpm_core.evaluation.face_network import FaceNetwork, Faces, asymmetry
from ddpm_core.faces import FaceFinder, align, decode


@pytest.fixture(scope="module")
def look():
    return FaceNetwork()


@pytest.fixture(scope="module")
def astronaut():
    file = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(file, "PNG")
    return align(decode(file.getvalue()), 64, FaceFinder("human_face")).pixels


@pytest.fixture(scope="module")
def seen(look, astronaut):
    """The astronaut, mirrored, in the dark, with half of her face moved, without eyes; and noise."""
    halves, blind = astronaut.copy(), astronaut.copy()
    halves[:, 32:] = np.roll(astronaut, 10, axis=0)[:, 32:]
    blind[26:35] = astronaut[13]
    noise = np.random.default_rng(0).integers(0, 256, astronaut.shape).astype(np.uint8)
    return look(np.stack([astronaut, astronaut[:, ::-1], astronaut * 0.6, halves, blind, noise]).astype(np.uint8))


def test_the_detector_is_less_certain_of_a_broken_face_and_finds_none_in_noise(seen):
    real, mirrored, dark, halves, blind, noise = seen.scores
    assert min(real, mirrored, dark) > 0.5 > max(halves, blind) > noise


def test_real_faces_are_whole_and_cuttings_from_elsewhere_are_not(look):
    small = (skimage.data.lfw_subset()[..., None].repeat(3, -1) * 255).astype(np.uint8)  # 100 faces, then 100 others
    assert look(small[:3]).whole.all()
    assert not look(small[-3:]).whole.any()


def test_a_person_stays_the_same_in_a_mirror_and_in_the_dark_and_others_are_far_away(look, seen):
    near = np.linalg.norm(seen.embeddings[1:3] - seen.embeddings[0], axis=1)
    others = look((skimage.data.lfw_subset()[:2, ..., None].repeat(3, -1) * 255).astype(np.uint8))
    far = np.linalg.norm(others.embeddings - seen.embeddings[0], axis=1)
    assert near.max() < 0.3 < 0.6 < far.min()


def test_every_picture_has_landmarks_and_a_person_even_where_no_face_is_found(seen):
    assert seen.scores[-1] < 0
    assert seen.embeddings.shape == (6, 128)
    assert np.isfinite(seen.embeddings).all()
    assert np.isfinite(seen.asymmetry).all()


def test_halves_that_do_not_fit_are_uneven(seen):
    assert seen.asymmetry[3] > 2 * seen.asymmetry[0]
    assert seen.asymmetry[1] == pytest.approx(seen.asymmetry[0], rel=0.2)


@pytest.fixture
def points():
    """68 landmarks of an even face."""
    random = np.random.default_rng(0)
    points = random.uniform(0, 100, (68, 2))
    for i, j in enumerate(face_network._MIRRORED):
        points[j] = points[i] * (-1, 1) if i != j else points[i] * (0, 1)
    return points


def test_an_even_face_is_even_wherever_it_stands_and_an_eye_that_slips_is_not(points):
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    slipped = points.copy()
    slipped[36:42] += 10
    even, turned, uneven = asymmetry(np.stack([points, 3 * points @ turn + 50, slipped]))
    assert (even, turned) == (pytest.approx(0), pytest.approx(0))
    assert uneven > 0.01


def test_it_judges_human_faces_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(face_figures, "FaceNetwork", lambda: "the network")
    assert (network_for("human_face"), network_for("cat_face")) == ("the network", None)
    for absent in ("dlib", "face_recognition_models"):
        monkeypatch.setattr(
            face_network, "find_spec", lambda name, absent=absent: None if name == absent else find_spec(name)
        )
        assert network_for("human_face") is None


# figures


def faces(count, seed, spread=1.0, score=2.0):
    random = np.random.default_rng(seed)
    return Faces(np.full(count, score), np.full(count, 0.1), spread * random.normal(size=(count, 128)))


def figures_against(real):
    return FaceFigures(lambda pixels: real[: len(pixels)], np.zeros((len(real), 1, 1, 3), np.uint8))


def test_figures_of_faces_like_the_real_ones_are_better_than_of_those_that_are_all_alike():
    figures = figures_against(faces(200, seed=0))
    alike, one = figures.measure(faces(100, seed=1)), figures.measure(faces(100, seed=1, spread=0.1, score=0.9))
    assert (alike["whole_faces"], one["whole_faces"]) == (1, 0)
    assert alike["face_recall"] > 0.5 > one["face_recall"]
    assert abs(alike["face_kid"]) < abs(one["face_kid"])
    assert alike["face_frechet"] < one["face_frechet"]


def test_no_more_real_faces_are_looked_at_than_their_time_is_worth():
    looked = []

    def look(pixels):
        looked.append(len(pixels))
        return faces(len(pixels), seed=0)

    figures = FaceFigures(look, np.zeros((800, 1, 1, 3), np.uint8))
    half, other = np.arange(0, 800, 2), np.arange(1, 800, 2)
    assert figures.of_real(half, other)["whole_faces"] == 1
    assert looked == [500]


def test_how_far_persons_are_apart_is_told_face_by_face():
    one = Faces(np.zeros(2), np.zeros(2), np.eye(2, 128))
    assert persons_apart(one, one[np.array([0, 0])]).tolist() == [0, pytest.approx(2**0.5)]
