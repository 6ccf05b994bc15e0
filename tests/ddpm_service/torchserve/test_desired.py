"""models.yaml: what it may say, and what it says when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpm_service.torchserve.desired import Desired, DesiredError, applying, changing, is_applied, load, save

ROOT = Path(__file__).parents[3]

GOOD = """\
# Ours.
models:
  faces:
    default: "0.10"
    versions:
      "0.10": faces_0.10.mar
      "0.2": {archive: faces_0.2.mar, workers: 0}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "models.yaml").write_text(GOOD)
    return tmp_path / "models.yaml"


def test_it_names_versions_archives_workers_and_the_default(file):
    faces = load(file).models["faces"]

    assert faces.default == "0.10"
    assert {key: (value.archive, value.workers) for key, value in faces.versions.items()} == {
        "0.10": ("faces_0.10.mar", 1),
        "0.2": ("faces_0.2.mar", 0),
    }


def test_the_repository_serves_its_embedded_model():
    assert "faces-64" in load(ROOT / "models.yaml").models


def test_saved_it_says_the_same_and_keeps_its_heading(file):
    before = load(file)

    save(before, file)

    assert load(file) == before
    assert file.read_text().startswith("# Ours.\n")
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ('"0.10": faces', "0.10: faces", r"models.faces.versions.0.1: .*string \(write numbers in quotes\)"),
        ('default: "0.10"', "default: 0.10", r"models.faces.default: .*string \(write numbers in quotes\)"),
        ('default: "0.10"', 'default: "3"', "default is 3, but versions are 0.10, 0.2"),
        ('default: "0.10"', 'default: "0.2"', "default is 0.2, which has no worker"),
        ("faces_0.10.mar", "../faces_0.10.mar", "models.faces.versions.0.10.archive: "),
        ("faces_0.10.mar", "http://example.org/a.mar", "models.faces.versions.0.10.archive: "),
        ("workers: 0", "workers: 2", "models.faces.versions.0.2.workers: .* less than or equal to 1"),
        ("workers: 0", "worker: 0", "models.faces.versions.0.2.worker: Extra inputs"),
        ("models:", "modells:", "modells: Extra inputs"),
        ("versions:", "versions: [", "is not YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(wrong, right, message, file):
    assert wrong in GOOD
    file.write_text(GOOD.replace(wrong, right, 1))

    with pytest.raises(DesiredError, match=message) as error:
        load(file)

    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    ["# für alle\n".encode("latin-1"), b"models: {a: {default: 0b_}}", b"models: 2001-12-14 25:61:43", b"[" * 3000],
    ids=["no UTF-8", "no number", "no time", "too deep"],
)
def test_what_cannot_be_understood_at_all_is_told_like_the_rest(wrong, file):
    file.write_bytes(wrong)

    with pytest.raises(DesiredError, match="is not YAML"):
        load(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DesiredError, match=r"models.yaml cannot be read: No such file"):
        load(tmp_path / "models.yaml")


def test_the_first_version_of_a_model_is_its_default_and_later_ones_only_if_said():
    one = Desired().with_version("cats", "1", "cats_1.mar", default=False)
    two = one.with_version("cats", "2", "cats_2.mar", default=False)
    three = two.with_version("cats", "3", "cats_3.mar", default=True)

    assert [wanted.models["cats"].default for wanted in (one, two, three)] == ["1", "1", "3"]
    assert list(three.models["cats"].versions) == ["1", "2", "3"]
    assert list(one.models["cats"].versions) == ["1"]


def test_the_default_goes_back(file):
    wanted = load(file).with_workers("faces", "0.2", 1).with_default("faces", "0.2")

    assert wanted.models["faces"].default == "0.2"
    assert wanted.with_default("faces", "0.10").models["faces"].default == "0.10"


def test_the_default_is_the_last_version_to_go_and_takes_the_model_with_it(file):
    wanted = load(file)

    with pytest.raises(DesiredError, match=r"set another default first \(0.2\)"):
        wanted.without("faces", "0.10")

    assert wanted.without("faces", "0.2").without("faces", "0.10").models == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda wanted: wanted.with_default("dogs", "1"), "no model dogs; models.yaml has faces"),
        (lambda wanted: wanted.without("faces", "7"), "faces has no version 7; models.yaml has 0.10, 0.2"),
        (lambda wanted: wanted.with_workers("faces", "0.10", 0), "default is 0.10, which has no worker"),
        (lambda wanted: wanted.with_workers("faces", "0.10", 2), "less than or equal to 1"),
        (lambda wanted: wanted.with_version("faces", "3", "a/b.mar", default=False), "archive"),
    ],
)
def test_a_wish_that_contradicts_it_is_refused(change, message, file):
    with pytest.raises(DesiredError, match=message):
        change(load(file))


def test_it_is_known_whether_somebody_applies_it_also_after_a_change(file):
    assert not is_applied(file)
    with applying(file), applying(file):  # two services may share one file
        assert is_applied(file)
        save(load(file).with_default("faces", "0.10"), file)
        assert is_applied(file)
    assert not is_applied(file)


def test_one_changes_what_is_served_the_next_waits_and_those_that_apply_it_share(tmp_path):
    class Taken(Exception):
        pass

    def taken(_folder: int) -> None:
        raise Taken

    with changing(tmp_path, taken) as share:
        for shared in (False, True):
            with pytest.raises(Taken), changing(tmp_path, taken, shared=shared):
                pass
        share()
        with changing(tmp_path, taken, shared=True):
            pass
    with changing(tmp_path, taken):
        pass
    with pytest.raises(DesiredError, match="cannot be read: No such file"), changing(tmp_path / "gone", taken):
        pass
