import pytest

from ddpm_core.training.recipe import Recipe, change
from ddpm_core.training.trainer import learning_rate


def rates(**settings):
    recipe = change(Recipe(), {"steps": 100, "warmup": 10, "learning_rate": 0.5, "decay_share": 0.4, **settings})
    return [learning_rate(recipe, step) for step in range(100)]


def test_it_rises_in_equal_steps_to_its_full_height():
    assert rates()[:10] == pytest.approx([0.05 * k for k in range(1, 11)])


def test_it_stays_there_until_the_last_share_of_the_run():
    assert set(rates()[10:60]) == {0.5}


@pytest.mark.parametrize(("decay", "quarter"), [("linear", 0.75), ("cosine", 0.8536)])
def test_then_it_falls_to_nought(decay, quarter):
    values = rates(decay=decay)
    assert values[70] == pytest.approx(0.5 * quarter, abs=1e-4)
    assert values[80] == pytest.approx(0.25)
    assert 0 < values[99] < 0.02
    assert values[60:] == sorted(values[60:], reverse=True)


def test_without_decay_it_stays_to_the_end():
    assert rates(decay="none")[99] == 0.5


def test_a_decay_over_the_whole_run_begins_after_the_warm_up():
    values = rates(decay="cosine", decay_share=1.0)
    assert values[9] == 0.5
    assert values[50] == pytest.approx(0.25)


def test_after_the_end_there_is_nothing_left():
    recipe = change(Recipe(), {"steps": 100, "warmup": 10})
    assert learning_rate(recipe, 100) == learning_rate(recipe, 200) == pytest.approx(0, abs=1e-12)
