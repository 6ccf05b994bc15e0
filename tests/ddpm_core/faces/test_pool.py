"""Pictures are decoded in processes of their own: what a picture does to its decoder is its sender's alone."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from skimage import data as pictures

from ddpm_core.errors import InvalidInput
from ddpm_core.faces import FaceFinder, Pool, align, decode


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


SELFIE = png(Image.fromarray(pictures.astronaut()))
FLAT = png(Image.new("RGB", (64, 64), "red"))


def slow() -> bytes:
    """A GIF of 64 × 64 pixels behind millions of remarks: what its size does not tell."""
    file = io.BytesIO()
    Image.new("P", (64, 64)).save(file, "GIF")
    gif = file.getvalue()
    begin = gif.index(b",")  # of the picture itself
    return gif[:begin] + b"!\xf0\x01a\0" * 4_000_000 + gif[begin:]


SLOW = slow()


OTHERS: set[int] = set()  # processes of pools that other files of tests have left


@pytest.fixture(scope="module", autouse=True)
def pool() -> Iterator[Pool]:
    OTHERS.update(each.pid for each in helpers())
    pool = Pool("human_face")
    yield pool
    pool.close()


def helpers() -> list[psutil.Process]:
    """The processes below this one that decode; they come and go."""
    found = []
    for each in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "ddpm_core.faces.helper" in each.cmdline() and each.pid not in OTHERS:
                found.append(each)
    return found


def parent_of(process: psutil.Process) -> int | None:
    with suppress(psutil.NoSuchProcess):  # it has come to its end
        return process.ppid()
    return None


def refusal(pool: Pool, data: bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        pool.decode(data).result(60)
    return caught.value


def test_a_target_is_the_one_that_this_process_would_make(pool: Pool) -> None:
    theirs, ours = pool.aim(SELFIE, 64).result(60), align(decode(SELFIE), 64, FaceFinder())
    assert (theirs.pixels == ours.pixels).all()
    assert (theirs.faces, theirs.quad, theirs.box, theirs.has_face) == (ours.faces, ours.quad, ours.box, True)


def test_a_picture_is_the_one_that_this_process_would_decode(pool: Pool) -> None:
    theirs, ours = pool.decode(SELFIE).result(60), decode(SELFIE)
    assert (np.asarray(theirs.pixels) == np.asarray(ours.pixels)).all()
    assert (theirs.width, theirs.height) == (ours.width, ours.height)


def test_a_refusal_is_the_one_that_this_process_would_make(pool: Pool) -> None:
    assert (refusal(pool, b"").code, refusal(pool, SELFIE[:999]).code) == ("empty_image", "truncated_image")
    with pytest.raises(InvalidInput) as caught:
        pool.aim(FLAT, 64, face=3).result(60)
    assert (caught.value.field, caught.value.given, caught.value.allowed) == ("face", 3, "none: no face was found")


def test_a_picture_that_takes_too_long_is_refused_and_others_are_decoded(pool: Pool) -> None:
    bombs = [pool.decode(SLOW) for _ in range(pool.helpers)]
    assert pool.decode(FLAT).result(60).width == 64
    assert {refusal.code for refusal in (bomb.exception(60) for bomb in bombs)} == {"too_costly"}  # type: ignore[union-attr]


def test_a_helper_that_is_killed_is_replaced(pool: Pool) -> None:
    pool.decode(FLAT).result(60)
    for process in helpers():  # those that wait for a picture, and the one that they are copies of
        with suppress(psutil.NoSuchProcess):
            process.kill()
    assert [pool.decode(FLAT).result(60).width for _ in range(3)] == [64] * 3


def test_a_helper_sees_one_picture_and_may_write_nothing(pool: Pool) -> None:
    pool.decode(FLAT).result(60)
    (origin,) = {parent for each in helpers() if (parent := parent_of(each))} - {os.getpid()}
    before = {each.pid for each in helpers()} - {origin}
    for _ in range(2 * pool.helpers):
        pool.decode(FLAT).result(60)
    found = []
    for each in {each.pid for each in helpers()} - {origin} - before:
        with suppress(OSError):  # it has come to its end
            found.append(Path(f"/proc/{each}/limits").read_text().splitlines())
    assert found
    for name in ("Max core file size", "Max file size"):
        assert next(line for line in found[0] if line.startswith(name)).split()[-3:-1] == ["0", "0"]


def test_many_pictures_of_one_owner_share_a_helper() -> None:
    pool = Pool(pictures_each=100)
    try:
        pool.decode(FLAT).result(60)
        before = {each.pid for each in helpers()}
        for _ in range(5):
            pool.decode(FLAT).result(60)
        assert {each.pid for each in helpers()} == before
        # Behind those who make faces, and not farther with each picture.
        assert {each.nice() - psutil.Process().nice() for each in helpers()} == {0, 3}
    finally:
        pool.close()


def test_a_caller_is_behind_others_for_what_his_pictures_took() -> None:
    pool = Pool()
    order: list[str] = []
    pool._charge("mallory", 1.5)  # as of bombs a moment ago
    hold = [pool.decode(SLOW, caller="mallory") for _ in range(pool.helpers)]
    jobs = {name: pool.decode(FLAT, caller=name.split("-")[0]) for name in ("mallory-1", "mallory-2", "alice", "bob")}
    for name, job in jobs.items():
        job.add_done_callback(lambda _, name=name: order.append(name))
    try:
        for job in (*hold, *jobs.values()):
            job.exception(60)
        assert set(order[:2]) == {"alice", "bob"}
    finally:
        pool.close()


def test_the_last_helper_is_kept_for_somebody_else(pool: Pool) -> None:
    bombs = [pool.decode(SLOW, caller="mallory") for _ in range(pool.helpers + 1)]
    pool.decode(FLAT, caller="alice").result(60)
    assert not all(bomb.done() for bomb in bombs)
    for bomb in bombs:
        bomb.cancel()
