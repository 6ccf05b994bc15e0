"""The engine: joining, leaving, order, cancel, poison, memory – with a fake network, and no server."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm_core import events, wholeness
from ddpm_core.bundle import Bundle, Wholeness
from ddpm_core.denoiser import Denoiser, Prediction
from ddpm_core.engine import Busy, StepEngine
from ddpm_core.errors import InvalidInput
from ddpm_core.events import Event
from ddpm_core.pace import measure_max_rows
from ddpm_core.pixels import to_pixels, to_tensor
from ddpm_core.plan import Plan, make_plan
from ddpm_core.ranking import demerits
from ddpm_core.sampling import sample

from .conftest import TinyNetwork
from .fake_device import DEVICE, FakeDevice


class FakeNetwork(TinyNetwork):
    """A network that counts the rows of its calls and can be told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []
        self.check: Callable[[Tensor, Tensor], None] = lambda x, level: None
        self.nan_at = -1

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        self.check(x, timestep + 1)
        self.calls.append(len(x))
        out = super().forward(x, timestep)
        return torch.where((timestep + 1 == self.nan_at).view(-1, 1, 1, 1), torch.nan, out)


RANKING = Wholeness(weights=(1.0,), images=2, source="none")
"""With it the network is called for finished images; this one's pictures have one size and give no features."""


class Clock:
    """A clock that a test turns; each look takes a millisecond."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork()


@pytest.fixture
def make(network: FakeNetwork, tiny_bundle: Bundle) -> Callable[..., StepEngine]:
    def make(**settings: object) -> StepEngine:
        denoiser = Denoiser(network, tiny_bundle.schedule, Prediction.EPSILON)
        defaults: dict[str, object] = {"max_rows": 8, "seconds_per_row": 0.001, "clock": Clock()}
        return StepEngine(denoiser, **(defaults | settings))  # type: ignore[arg-type]

    return make


@pytest.fixture
def plan(tiny_bundle: Bundle) -> Callable[..., Plan]:
    def plan(steps: int = 4, num_images: int = 1, seed: int = 0, **how: object) -> Plan:
        return make_plan(tiny_bundle, num_inference_steps=steps, num_images=num_images, seed=seed, **how)  # type: ignore[arg-type]

    return plan


MakePlan = Callable[..., Plan]
MakeEngine = Callable[..., StepEngine]


def run(engine: StepEngine) -> Iterator[tuple[str, Event]]:
    for _ in range(10_000):
        if not len(engine):
            return
        yield from engine.tick()
    raise AssertionError("the engine does not come to an end")


def of(happened: list[tuple[str, Event]], request_id: str) -> list[Event]:
    return [event for who, event in happened if who == request_id]


def test_a_request_is_started_advanced_shown_and_ended(make: MakeEngine, plan: MakePlan) -> None:
    engine = make()
    engine.admit("a", plan(steps=3, num_images=2, seed=5))
    happened = of(list(run(engine)), "a")
    assert [type(event) for event in happened] == [
        events.Started,
        events.Progress,
        events.Progress,
        events.Progress,
        events.Image,
        events.Image,
        events.End,
    ]
    assert [event.step for event in happened if isinstance(event, events.Progress)] == [1, 2, 3]
    assert [event.seed for event in happened if isinstance(event, events.Image)] == [5, 6]
    assert [event.resemblance_score for event in happened if isinstance(event, events.Image)] == [None, None]
    assert happened[-1].calls == 6


def test_its_images_are_those_of_the_offline_loop(make: MakeEngine, plan: MakePlan) -> None:
    engine = make(max_rows=2)
    plans = {"a": plan(steps=5, num_images=3, seed=1), "b": plan(steps=3, seed=9, sampler="ddpm")}
    for request_id, its_plan in plans.items():
        engine.admit(request_id, its_plan)
    happened = list(run(engine))
    for request_id, its_plan in plans.items():
        expected = sample(engine.denoiser, its_plan.start())
        images = [event.pixels for event in of(happened, request_id) if isinstance(event, events.Image)]
        for image, x in zip(images, expected, strict=True):
            assert np.abs(image.astype(int) - to_pixels(x)).max() <= 1


def test_a_request_joins_between_the_steps_of_another(make: MakeEngine, plan: MakePlan, network: FakeNetwork) -> None:
    engine = make()
    engine.admit("a", plan(steps=6))
    engine.tick()
    engine.tick()
    engine.admit("b", plan(steps=2))
    happened = engine.tick()
    assert {who for who, event in happened if isinstance(event, events.Progress)} == {"a", "b"}
    assert network.calls == [1, 1, 2]


def test_requests_join_wait_and_leave_without_a_trace_in_anybodys_images(
    make: MakeEngine, plan: MakePlan, network: FakeNetwork
) -> None:
    """The batch is put together anew at almost every tick; who waits in between goes on where it was."""
    clock = Clock()
    engine = make(max_rows=3, clock=clock, seconds_per_row=1.0)
    plans = {str(i): plan(steps=3 + i, num_images=1 + i % 2, seed=10 * i) for i in range(6)}
    happened: list[tuple[str, Event]] = []
    for request_id, its_plan in plans.items():
        engine.admit(request_id, its_plan)
        clock.now += 5.0
        happened += engine.tick()
    happened += run(engine)
    for request_id, its_plan in plans.items():
        images = [event.pixels for event in of(happened, request_id) if isinstance(event, events.Image)]
        for image, x in zip(images, sample(engine.denoiser, its_plan.start()), strict=True):
            assert np.abs(image.astype(int) - to_pixels(x)).max() <= 1
        steps = [event.step for event in of(happened, request_id) if isinstance(event, events.Progress)]
        assert steps == list(range(1, its_plan.calls + 1))


@pytest.mark.parametrize("ahead", [0, 1])
def test_nothing_is_kept_of_those_who_have_ended_or_left(
    make: MakeEngine, plan: MakePlan, network: FakeNetwork, ahead: int
) -> None:
    held: list[weakref.ref[Tensor]] = []
    network.check = lambda x, level: held.append(weakref.ref(x))
    engine = make(ahead=ahead)
    engine.admit("ends", plan(steps=3))
    list(run(engine))
    engine.admit("leaves", plan(steps=3))
    engine.tick()
    engine.retain([])
    engine.tick()
    assert [ref() for ref in held] == [None] * 4


def test_a_tick_ahead_the_same_happens_a_tick_later(make: MakeEngine, plan: MakePlan, network: FakeNetwork) -> None:
    """On a GPU the next tick is launched before the last one is waited for."""

    def all_that_happens(ahead: int) -> list[list[tuple[str, Event]]]:
        engine = make(max_rows=8, ahead=ahead, clock=lambda: 0.0)
        for i, request_id in enumerate("abc"):
            engine.admit(request_id, plan(steps=3 + i, num_images=2, seed=i), preview_every=2)
        ticks = []
        while len(engine):
            ticks.append([each for each in engine.tick() if not isinstance(each[1], events.Started)])
        return ticks

    at_once, later = all_that_happens(0), all_that_happens(1)
    assert repr([*chain(*later)]) == repr([*chain(*at_once)])
    assert later[0] == []
    assert [len(tick) for tick in later[1 : len(at_once)]] == [len(tick) for tick in at_once[:-1]]


def test_who_leaves_or_fails_while_a_tick_is_under_way_is_heard_of_no_more(
    make: MakeEngine, plan: MakePlan, network: FakeNetwork
) -> None:
    network.nan_at = only_of_five(plan)
    engine = make(ahead=1)
    for request_id, steps in {"leaves": 4, "fails": 5, "stays": 4}.items():
        engine.admit(request_id, plan(steps=steps))
    engine.tick()
    engine.retain(["fails", "stays"])
    happened = list(run(engine))
    assert of(happened, "leaves") == []
    assert [event for event in of(happened, "fails") if isinstance(event, events.Failed)] == of(happened, "fails")[-1:]
    assert isinstance(of(happened, "stays")[-1], events.End)


def test_rows_of_one_request_advance_together_even_when_they_need_several_calls(
    make: MakeEngine, plan: MakePlan, network: FakeNetwork
) -> None:
    engine = make(max_rows=2)
    engine.admit("a", plan(steps=1, num_images=5))
    list(run(engine))
    assert network.calls == [2, 2, 1]


def test_the_shorter_request_goes_first_and_the_longer_is_told_its_place(make: MakeEngine, plan: MakePlan) -> None:
    engine = make(max_rows=1, seconds_per_row=1.0)
    engine.admit("long", plan(steps=50))
    engine.admit("short", plan(steps=2))
    happened = list(run(engine))
    assert next(who for who, event in happened if isinstance(event, events.End)) == "short"
    assert of(happened, "long")[0] == events.Queued(1)


def test_nobody_waits_for_ever_behind_shorter_requests(make: MakeEngine, plan: MakePlan) -> None:
    """A stream of short requests, one a tick, does not starve a long one."""
    clock = Clock()
    engine = make(max_rows=1, seconds_per_row=1.0, clock=clock)
    engine.admit("long", plan(steps=20))
    for i in range(100):
        engine.admit(f"short{i}", plan(steps=2))
        clock.now += 1.0
        if "long" in [who for who, event in engine.tick() if isinstance(event, events.End)]:
            break
        engine.seconds_per_row = 1.0
    else:
        raise AssertionError("the long request never ended")


def test_who_has_many_requests_open_queues_behind_them_and_not_before_others(make: MakeEngine, plan: MakePlan) -> None:
    engine = make(max_rows=1, seconds_per_row=1.0)
    for i in range(10):
        engine.admit(f"many{i}", plan(steps=5), caller="alice")
    engine.admit("one", plan(steps=5), caller="bob")
    ended = [who for who, event in run(engine) if isinstance(event, events.End)]
    assert ended.index("one") <= 1
    assert [who for who in ended if who != "one"] == [f"many{i}" for i in range(10)]


def test_who_always_has_many_requests_open_leaves_half_to_another(make: MakeEngine, plan: MakePlan) -> None:
    """Whose requests have waited for long goes first only where it was not he himself who held them up."""
    clock = Clock()
    engine = make(max_rows=1, seconds_per_row=1.0, clock=clock)
    ended: list[str] = []
    asked = 0
    for _ in range(300):
        while sum(f"alice{i}" in engine for i in range(asked)) < 10:
            engine.admit(f"alice{asked}", plan(steps=5), caller="alice")
            asked += 1
        if "bob" not in engine:
            engine.admit("bob", plan(steps=5), caller="bob")
        clock.now += 1.0
        ended += [who for who, event in engine.tick() if isinstance(event, events.End)]
        engine.seconds_per_row = 1.0
    assert abs(ended.count("bob") / len(ended) - 0.5) < 0.1


@pytest.mark.parametrize("leaves", [False, True], ids=["waits for his faces", "leaves before they are made"])
def test_who_asks_now_and_then_comes_before_one_who_asks_all_the_time(
    make: MakeEngine, plan: MakePlan, leaves: bool
) -> None:
    """Half of the machine is also his who took none of it for a while; who leaves his requests has taken it as well."""
    clock = Clock()
    engine = make(max_rows=1, seconds_per_row=1.0, clock=clock)
    took: list[float] = []
    asked = 0
    for moment in range(200):
        if f"alice{asked}" in engine and leaves and moment % 4 == 3:
            engine.retain(["bob"])
        if f"alice{asked}" not in engine:
            asked += 1
            engine.admit(f"alice{asked}", plan(steps=5), caller="alice")
        if moment % 40 == 12:
            engine.admit("bob", plan(steps=8), caller="bob")
        clock.now += 1.0
        took += [moment % 40 - 11 for who, event in engine.tick() if who == "bob" and isinstance(event, events.End)]
        engine.seconds_per_row = 1.0
    assert took == [8] * 5


def test_who_leaves_is_dropped_and_the_others_go_on(make: MakeEngine, plan: MakePlan, network: FakeNetwork) -> None:
    engine = make()
    for request_id in "abc":
        engine.admit(request_id, plan(steps=4))
    engine.tick()
    assert engine.retain(["a", "c"]) == 1
    assert "b" not in engine
    engine.tick()
    assert network.calls == [3, 2]
    assert {who for who, event in run(engine) if isinstance(event, events.End)} == {"a", "c"}


def test_previews_come_at_intervals_and_show_every_image(make: MakeEngine, plan: MakePlan) -> None:
    engine = make()
    engine.admit("a", plan(steps=6, num_images=2), preview_every=2)
    previews = [event for event in of(list(run(engine)), "a") if isinstance(event, events.Preview)]
    assert [(preview.step, preview.index) for preview in previews] == [(2, 0), (2, 1), (4, 0), (4, 1)]
    assert previews[0].pixels.shape == (16, 16, 3)


def test_the_best_of_k_are_kept_best_first(make: MakeEngine, tiny_bundle: Bundle, target: np.ndarray) -> None:
    wide = make_plan(tiny_bundle, target, num_images=6, seed=0, resemblance=0.1)
    engine = make()
    engine.admit("two", wide, num_images=2)
    engine.admit("all", wide)
    happened = list(run(engine))
    two, everything = ([e for e in of(happened, who) if isinstance(e, events.Image)] for who in ("two", "all"))
    finished = torch.stack([to_tensor(image.pixels) for image in everything])
    assert [image.index for image in two] == [0, 1]
    assert wide.target is not None
    ranked = demerits(engine.denoiser, finished, wide.target, rows=4).argsort()[:2]
    assert [image.seed for image in two] == [everything[i].seed for i in ranked]


def test_without_a_target_or_a_choice_the_order_stays(
    make: MakeEngine, plan: MakePlan, tiny_bundle: Bundle, target: np.ndarray
) -> None:
    engine = make()
    engine.admit("unguided", plan(num_images=4, seed=5), num_images=2)
    engine.admit("all", make_plan(tiny_bundle, target, num_images=4, seed=5))
    happened = list(run(engine))
    unguided, everything = (
        [e.seed for e in of(happened, who) if isinstance(e, events.Image)] for who in ("unguided", "all")
    )
    assert (unguided, everything) == ([5, 6], [5, 6, 7, 8])


def test_a_ranking_that_fails_ends_its_own_request_alone(
    make: MakeEngine, plan: MakePlan, network: FakeNetwork, tiny_bundle: Bundle, target: np.ndarray
) -> None:
    def fail(x: Tensor, level: Tensor) -> None:
        if (level == network_level).any():
            raise RuntimeError("poison")

    engine = make(wholeness=RANKING)
    network_level = engine.denoiser.schedule.level_at(wholeness.SIGMA, 16)
    network.check = fail
    engine.admit("ranked", make_plan(tiny_bundle, target, num_images=3, resemblance=0.1, seed=0), num_images=1)
    engine.admit("plain", plan(steps=3))
    happened = list(run(engine))
    assert [e.code for e in of(happened, "ranked") if isinstance(e, events.Failed)] == ["generation_failed"]
    assert isinstance(of(happened, "plain")[-1], events.End)


def only_of_five(plan: MakePlan) -> int:
    """Give a level that plans of five steps meet and those of three do not: that is how a row is poisoned below."""
    five, three = (set(plan(steps=steps).table.levels.tolist()) for steps in (5, 3))
    return max(five - three)


def test_a_row_that_fails_alone_is_answered_alone(make: MakeEngine, plan: MakePlan, network: FakeNetwork) -> None:
    poison = only_of_five(plan)

    def fail(x: Tensor, level: Tensor) -> None:
        if (level == poison).any():
            raise RuntimeError("poison")

    network.check = fail
    engine = make()
    for i, request_id in enumerate("abcde"):
        engine.admit(request_id, plan(steps=5 if request_id == "c" else 3, seed=i))
    happened = list(run(engine))
    assert isinstance(of(happened, "c")[-1], events.Failed)
    assert all(isinstance(of(happened, who)[-1], events.End) for who in "abde")


def test_an_image_that_is_no_longer_finite_fails_alone(make: MakeEngine, plan: MakePlan, network: FakeNetwork) -> None:
    network.nan_at = only_of_five(plan)
    engine = make()
    engine.admit("good", plan(steps=3))
    engine.admit("bad", plan(steps=5, sampler="ddpm"))
    happened = list(run(engine))
    assert isinstance(of(happened, "bad")[-1], events.Failed)
    assert isinstance(of(happened, "good")[-1], events.End)


def test_a_failure_tells_nothing_of_the_picture(
    make: MakeEngine, plan: MakePlan, network: FakeNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(x: Tensor, level: Tensor) -> None:
        raise RuntimeError(f"secret {x[0, 0, 0, 0]}")

    network.check = fail
    engine = make()
    engine.admit("a", plan())
    (failed,) = [event for _, event in run(engine) if isinstance(event, events.Failed)]
    assert "secret" not in failed.message + caplog.text


def test_out_of_memory_halves_the_calls_and_loses_nothing(
    make: MakeEngine, plan: MakePlan, network: FakeNetwork
) -> None:
    def small_memory(x: Tensor, level: Tensor) -> None:
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    network.check = small_memory
    engine = make(max_rows=8)
    for i in range(8):
        engine.admit(str(i), plan(steps=2, seed=i))
    happened = list(run(engine))
    assert sum(isinstance(event, events.End) for _, event in happened) == 8
    assert engine.max_rows == 2
    assert network.calls == [2] * 8


def test_memory_that_is_free_again_is_used_again(make: MakeEngine, plan: MakePlan, network: FakeNetwork) -> None:
    def small_memory(x: Tensor, level: Tensor) -> None:
        if len(x) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")

    network.check, room, clock = small_memory, 4, Clock()
    engine = make(max_rows=8, clock=clock)
    engine.admit("a", plan(steps=4, num_images=8))
    engine.tick()
    room = 8  # a neighbour on the device has ended
    engine.tick()
    clock.now += 400.0
    list(run(engine))
    assert network.calls == [4, 4, 4, 4, 8, 8]


@pytest.mark.parametrize("rows", [1, 5])
def test_a_lost_device_is_raised_and_no_row_is_looked_for(
    make: MakeEngine, plan: MakePlan, network: FakeNetwork, rows: int
) -> None:
    tried = []

    def fail(x: Tensor, level: Tensor) -> None:
        tried.append(len(x))
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    network.check = fail
    engine = make()
    engine.admit("a", plan(num_images=rows))
    with pytest.raises(torch.AcceleratorError):
        engine.tick()
    assert tried == [rows]


def test_a_device_that_is_lost_while_images_are_ranked_is_raised_too(
    make: MakeEngine, network: FakeNetwork, tiny_bundle: Bundle, target: np.ndarray
) -> None:
    def fail(x: Tensor, level: Tensor) -> None:
        if (level == network_level).any():
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    engine = make(wholeness=RANKING)
    network_level = engine.denoiser.schedule.level_at(wholeness.SIGMA, 16)
    network.check = fail
    engine.admit("ranked", make_plan(tiny_bundle, target, num_images=3, resemblance=0.1, seed=0), num_images=1)
    with pytest.raises(torch.AcceleratorError):
        list(run(engine))


def test_a_failed_call_gives_its_memory_back_before_the_next(
    make: MakeEngine, plan: MakePlan, network: FakeNetwork
) -> None:
    held: list[weakref.ref[Tensor]] = []

    def remember(x: Tensor, level: Tensor) -> None:
        work = x.clone()
        held.append(weakref.ref(work))
        if sum(len(alive) for ref in held if (alive := ref()) is not None) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    network.check = remember
    engine = make(max_rows=8)
    engine.admit("a", plan(steps=2, num_images=8))
    assert isinstance(list(run(engine))[-1][1], events.End)
    assert engine.max_rows == 4
    assert network.calls == [4] * 4


def test_a_row_that_fails_holds_no_memory_while_the_others_advance(
    make: MakeEngine, plan: MakePlan, network: FakeNetwork
) -> None:
    poison, held = only_of_five(plan), []

    def remember(x: Tensor, level: Tensor) -> None:
        work = x.clone()
        held.append(weakref.ref(work))
        assert sum(ref() is not None for ref in held) == 1
        if (level == poison).any():
            raise RuntimeError("poison")

    network.check = remember
    engine = make()
    engine.admit("bad", plan(steps=5))
    engine.admit("good", plan(steps=3, num_images=3))
    happened = list(run(engine))
    assert isinstance(of(happened, "bad")[-1], events.Failed)
    assert isinstance(of(happened, "good")[-1], events.End)


def test_memory_too_small_for_one_image_fails_that_request_with_the_reason(
    make: MakeEngine, plan: MakePlan, network: FakeNetwork
) -> None:
    def no_memory(x: Tensor, level: Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    network.check = no_memory
    engine = make()
    engine.admit("a", plan())
    assert of(list(run(engine)), "a")[-1].code == "out_of_memory"


def test_a_full_engine_says_when_to_come_back(make: MakeEngine, plan: MakePlan) -> None:
    engine = make(capacity=2, seconds_per_row=3.0)
    engine.admit("a", plan(steps=4))
    engine.admit("b", plan(steps=4))
    with pytest.raises(Busy) as caught:
        engine.admit("c", plan())
    assert caught.value.retry_after == 12
    assert len(engine) == 2


def test_more_work_than_allowed_is_refused_with_an_estimate(make: MakeEngine, plan: MakePlan) -> None:
    engine = make(max_work=100, seconds_per_row=0.5)
    engine.admit("fits", plan(steps=50, num_images=2))
    with pytest.raises(InvalidInput, match=r"about 102 s"):
        engine.admit("a", plan(steps=51, num_images=4))
    with pytest.raises(InvalidInput):
        engine.admit("b", plan(steps=30), max_work=20)


def test_the_estimate_is_the_pace_so_far(make: MakeEngine, plan: MakePlan, network: FakeNetwork) -> None:
    clock = Clock()

    def take_two_seconds(x: Tensor, level: Tensor) -> None:
        clock.now += 2.0

    network.check = take_two_seconds
    engine = make(clock=clock)
    engine.admit("a", plan(steps=4))
    estimates = [event.eta_seconds for _, event in run(engine) if isinstance(event, events.Progress)]
    assert estimates == pytest.approx([6, 4, 2, 0], abs=0.1)


def test_the_batch_size_is_measured_inside_memory(make: MakeEngine, network: FakeNetwork) -> None:
    def small_memory(x: Tensor, level: Tensor) -> None:
        if len(x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    network.check = small_memory
    rows, seconds = measure_max_rows(make().denoiser, (3, 16, 16))
    assert rows in (1, 2, 4)
    assert seconds > 0


@pytest.mark.parametrize(("where", "most"), [(torch.device("cpu"), 64), (DEVICE, 512)], ids=["CPU", "GPU"])
def test_a_gpu_is_measured_up_to_larger_calls(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, where: torch.device, most: int
) -> None:
    monkeypatch.setattr("ddpm_core.pace.in_turn", lambda calls, repeats, budget: [[1.0]])  # larger calls always pay
    with FakeDevice():
        denoiser = Denoiser(TinyNetwork().to(where), tiny_bundle.schedule, Prediction.EPSILON, device=where)
        assert measure_max_rows(denoiser, (3, 4, 4)) == (most, 1 / most)
