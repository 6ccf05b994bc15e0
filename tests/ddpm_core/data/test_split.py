import pytest

from ddpm_core.data.split import split
from ddpm_core.errors import InvalidInput

PERSON = r"^lfw/(.+)_\d+\."


def faces(persons, each):
    names = [f"lfw/Person_{p}_{i:04}.webp" for p in range(persons) for i in range(each)]
    return names, [f"file {name}" for name in names]


def test_the_share_is_about_what_was_asked_for():
    names, digests = faces(2000, 1)
    training, held = split(names, digests, 0.1, PERSON)
    assert sorted(training + held) == list(range(2000))
    assert 150 < len(held) < 250


def test_no_person_lies_on_both_sides():
    names, digests = faces(100, 5)
    training, held = split(names, digests, 0.3, PERSON)
    persons = [{names[i].rsplit("_", 1)[0] for i in side} for side in (training, held)]
    assert persons[0] & persons[1] == set()
    assert all(persons)


def test_no_file_lies_on_both_sides_under_two_names():
    names = [f"celeba/{i}.png" for i in range(400)]
    digests = [f"file {i % 200}" for i in range(400)]
    training, held = split(names, digests, 0.3, PERSON)
    assert {digests[i] for i in training} & {digests[i] for i in held} == set()
    assert held


def test_persons_that_share_a_file_lie_on_one_side():
    names, digests = faces(200, 2)
    for pair in range(0, 400, 4):  # the second image of one person is the first of the next
        digests[pair + 2] = digests[pair + 1]
    _, held = split(names, digests, 0.3, PERSON)
    assert held
    assert all(all(i in held for i in range(pair, pair + 4)) for pair in range(0, 400, 4) if pair in held)


def test_an_image_stays_on_its_side_when_others_come_and_the_order_changes():
    names, digests = faces(50, 2)
    more, more_digests = faces(80, 2)
    _, held = split(names, digests, 0.3, PERSON)
    _, held_of_more = split(more[::-1], more_digests[::-1], 0.3, PERSON)
    assert {names[i] for i in held} == {more[::-1][i] for i in held_of_more} & set(names)


@pytest.mark.parametrize("pattern", ["lfw/(", "lfw/.+"])
def test_a_pattern_that_names_no_person_is_refused(pattern):
    with pytest.raises(InvalidInput) as caught:
        split(["lfw/a_1.png"], ["x"], 0.5, pattern)
    assert caught.value.field == "person_pattern"
