import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ddpm_core.bundle import WEIGHTS, read_bundle
from ddpm_core.denoiser import Denoiser
from ddpm_core.errors import InvalidInput
from ddpm_core.sampling import SampleState, dpmpp_2m, noise, sample
from ddpm_core.training import checkpoint, run
from ddpm_core.training import recipe as recipes
from ddpm_core.training.logbook import read_metrics
from ddpm_core.training.loop import Limits


def weights(folder):
    """Averaged and raw weights, and the optimizer's state, of a checkpoint."""
    state = torch.load(folder / checkpoint.STATE, weights_only=True)["optimizer"]["state"]
    moments = {f"{i} {name}": value for i, entry in state.items() for name, value in entry.items()}
    return load_file(folder / WEIGHTS), load_file(folder / checkpoint.NETWORK), moments


def assert_same(first, second):
    for a, b in zip(weights(first), weights(second), strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


def steps(folder):
    return [row["step"] for row in read_metrics(folder) if "loss" in row]


@pytest.fixture(scope="session")
def finished(pictures, tmp_path_factory, tiny):
    """A whole run of eight steps, uninterrupted."""
    out = tmp_path_factory.mktemp("finished") / "run"
    reported = []
    run.train(pictures, out, tiny(sample_every=8), report=reported.append)
    return out, reported


def test_training_lowers_the_loss(pictures, tmp_path, tiny):
    run.train(pictures, tmp_path / "run", tiny(steps=40, checkpoint_every=0, validate_every=20))
    rows = read_metrics(tmp_path / "run")
    losses = [row["loss"] for row in rows if "loss" in row]
    validation = [row["validation_loss"] for row in rows if "validation_loss" in row]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
    assert validation[-1] < validation[0]


def test_a_run_can_begin_with_the_weights_of_a_bundle_and_says_so(finished, pictures, tmp_path, tiny):
    parent, out = finished[0] / "last", tmp_path / "run"
    run.train(pictures, out, tiny(init=str(parent), learning_rate=1e-9, ema_half_life=0), Limits(max_steps=1))
    parent_weights, weights_now = load_file(parent / WEIGHTS), load_file(out / "last" / WEIGHTS)
    assert all(torch.allclose(weights_now[key], parent_weights[key], atol=1e-6) for key in parent_weights)
    run.resume(out, [f"init={tmp_path / 'gone'}"], Limits(max_steps=2))  # only the beginning needs it
    seen = read_bundle(parent).manifest.provenance["images_seen"]
    assert f"begun with the weights of {recipes.read().name} 0.1, {seen} images seen" in (
        out / "last" / "README.md"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize(("change", "why"), [({"prediction": "epsilon"}, "prediction"), ({"patch": 2}, "patch")])
def test_a_bundle_that_does_not_fit_the_recipe_is_refused_before_the_first_step(
    finished, pictures, tmp_path, tiny, change, why
):
    with pytest.raises(InvalidInput, match=why) as refused:
        run.train(pictures, tmp_path / "run", tiny(init=str(finished[0] / "last"), **change))
    assert refused.value.field == "init"
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_leaves_figures_a_curve_grids_and_two_checkpoints(finished):
    out, reported = finished
    assert steps(out) == list(range(1, 9))
    assert [row["step"] for row in read_metrics(out) if "validation_loss" in row] == [4, 8]
    assert all({"images", "learning_rate", "gradient_norm"} <= row.keys() for row in read_metrics(out) if "loss" in row)
    assert reported[1:] == read_metrics(out)
    assert (reported[0]["training_images"] + reported[0]["held_back_images"], reported[0]["steps"]) == (30, 8)
    with Image.open(out / "losses.png") as curve, Image.open(out / "samples" / "step-00000008.png") as grid:
        assert min(curve.size) > 300
        assert grid.size == (34, 34)
    assert list((out / "tensorboard").glob("events.*"))
    assert checkpoint.latest(out).name == (out / "last").resolve().name == "step-00000008"
    assert {p.name for p in (out / "checkpoints").iterdir()} == {
        (out / link).resolve().name for link in ("last", "best")
    }


def test_a_checkpoint_is_a_bundle_of_the_averaged_weights_and_is_sampled(finished):
    out, _ = finished
    bundle = read_bundle(out / "last")
    network = bundle.load_network()
    raw = load_file(out / "last" / checkpoint.NETWORK)
    assert not torch.equal(network.state_dict()["output.weight"], raw["output.weight"])
    assert bundle.manifest.provenance["images_seen"] == 64
    assert bundle.manifest.provenance["data"] == read_bundle(out / "best").manifest.provenance["data"]
    table = dpmpp_2m(bundle.schedule, bundle.schedule.karras(1000, 3))
    denoiser = Denoiser(network, bundle.schedule, bundle.manifest.prediction_type)
    assert sample(denoiser, [SampleState(table, 0, noise(0, 0, bundle.shape))]).isfinite().all()
    assert str(out.parent) not in (out / "last" / "bundle.json").read_text(encoding="utf-8")


def test_an_interrupted_run_ends_with_the_same_weights_as_an_uninterrupted_one(finished, pictures, tmp_path, tiny):
    out, _ = finished
    again = tmp_path / "run"
    run.train(pictures, again, tiny(sample_every=8), Limits(max_steps=3))
    run.resume(again, limits=Limits(max_steps=5))
    run.resume(again)
    assert_same(out / "last", again / "last")
    assert_same(out / "best", again / "best")
    without_times = [
        [{k: v for k, v in row.items() if k != "images_per_second"} for row in read_metrics(f)] for f in (out, again)
    ]
    assert without_times[0] == without_times[1]


def test_so_does_one_by_muon(pictures, tmp_path, tiny):
    recipe = tiny(optimizer="muon", steps=4)
    run.train(pictures, tmp_path / "whole", recipe)
    run.train(pictures, tmp_path / "again", recipe, Limits(max_steps=2))
    run.resume(tmp_path / "again")
    for one, other in zip(
        weights(tmp_path / "whole" / "last")[:2], weights(tmp_path / "again" / "last")[:2], strict=True
    ):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_killed_at_any_moment_goes_on_from_a_whole_checkpoint(finished, pictures, tmp_path, tiny):
    out, _ = finished
    again = tmp_path / "run"
    code = (
        "import sys, torch; from pathlib import Path\n"
        "from ddpm_core.training import recipe, run\n"
        "torch.set_num_threads(int(sys.argv[4]))\n"  # the order of sums depends on it
        "run.train(Path(sys.argv[1]), Path(sys.argv[2]), recipe.read(Path(sys.argv[3])))\n"
    )
    settings = tmp_path / "recipe.yaml"
    settings.write_text(json.dumps(tiny(sample_every=8, checkpoint_every=1).model_dump(mode="json")), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(pictures), str(again), str(settings), str(torch.get_num_threads())]
    )
    try:
        while len(steps(again)) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    run.resume(again)
    assert_same(out / "last", again / "last")
    assert steps(again) == list(range(1, 9))


def test_remains_of_a_killed_write_are_not_taken_for_a_checkpoint(finished, pictures, tmp_path, tiny):
    out, _ = finished
    again = tmp_path / "run"
    run.train(pictures, again, tiny(sample_every=8), Limits(max_steps=4))
    half = again / "checkpoints" / ".partial"
    (half / "training").mkdir(parents=True)
    (half / "bundle.json").write_text("{", encoding="utf-8")
    with (again / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 5, "images": 40, "loss": 9.9}\n{"step": 6, "ima')
    run.resume(again)
    assert_same(out / "last", again / "last")
    assert steps(again) == list(range(1, 9))
    assert all(row["loss"] < 9 for row in read_metrics(again) if "loss" in row)


def test_a_wish_to_stop_leaves_a_checkpoint_of_the_step_under_way(pictures, tmp_path, tiny):
    seen = []

    def report(row):
        if row.get("step") == 3 and "loss" in row:
            os.kill(os.getpid(), signal.SIGTERM)
        seen.append(row)

    progress = run.train(pictures, tmp_path / "run", tiny(checkpoint_every=0, validate_every=0), report=report)
    assert progress.step == 4  # the signal came while step 3 was reported
    assert checkpoint.latest(tmp_path / "run").name == "step-00000004"


def test_minutes_limit_a_sitting(pictures, tmp_path, tiny):
    progress = run.train(pictures, tmp_path / "run", tiny(steps=10**6), Limits(max_minutes=0))
    assert progress.step == 1
    assert run.resume(tmp_path / "run", limits=Limits(max_minutes=0)).step == 2


def test_settings_change_on_resume_and_are_kept(pictures, tmp_path, tiny):
    out = tmp_path / "run"
    run.train(pictures, out, tiny(), Limits(max_steps=2))
    assert run.resume(out, ["steps=3", "batch=4"]).images == 2 * 8 + 4
    assert recipes.read(out / run.RECIPE).steps == 3


def test_training_stops_early_when_validation_no_longer_gets_better(pictures, tmp_path, tiny):
    stuck = tiny(learning_rate=1e-30, steps=100, validate_every=2, patience=3, ema_half_life=0)
    assert run.train(pictures, tmp_path / "run", stuck).step == 2 + 3 * 2
    assert (tmp_path / "run" / "best").resolve().name == "step-00000002"


def test_a_batch_computed_in_parts_is_the_same_batch(pictures, tmp_path, tiny):
    run.train(pictures, tmp_path / "parts", tiny(steps=3, accumulate=4))
    row = read_metrics(tmp_path / "parts")[0]
    assert (row["images"], row["step"]) == (8, 1)


def test_numbers_that_are_no_longer_finite_stop_the_run_and_keep_the_last_good_checkpoint(pictures, tmp_path, tiny):
    out = tmp_path / "run"
    run.train(pictures, out, tiny(), Limits(max_steps=2))
    with pytest.raises(InvalidInput, match=r"not finite at step \d.*lower learning_rate") as caught:
        run.resume(out, ["learning_rate=1", "warmup=0", "clip=0", "decay=none", "weight_decay=1e30"])
    assert caught.value.code == "diverged"
    assert checkpoint.latest(out).name == "step-00000002"
    assert run.resume(out, ["learning_rate=1e-3", "weight_decay=0"]).step == 8


@contextmanager
def files_of_at_most(size):
    """Let the system refuse longer files, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [20_000, 60_000])
def test_a_full_disk_is_an_error_that_keeps_the_last_good_checkpoint(size, finished, pictures, tmp_path, tiny):
    out, _ = finished
    again = tmp_path / "run"
    run.train(pictures, again, tiny(sample_every=8), Limits(max_steps=3))
    with files_of_at_most(size), pytest.raises(OSError, match="File too large"):
        run.resume(again)
    assert [p.name for p in (again / "checkpoints").iterdir()] == ["step-00000003"]
    run.resume(again)
    assert_same(out / "last", again / "last")


def test_a_folder_that_holds_a_run_is_not_overwritten(finished, pictures, tiny):
    with pytest.raises(InvalidInput, match="already holds a run; `ddpm resume`"):
        run.train(pictures, finished[0], tiny())


def test_a_run_never_lies_in_the_pictures_that_it_is_trained_on(make_pictures, tmp_path, tiny):
    pictures = make_pictures(tmp_path / "pictures")
    with pytest.raises(InvalidInput, match="lies inside the source") as refused:
        run.train(pictures, pictures / "run", tiny())
    assert (refused.value.code, refused.value.field) == ("out_in_source", "out")
    assert not (pictures / "run").exists()
    run.train(pictures, tmp_path / "run", tiny(), Limits(max_steps=1))
    (tmp_path / "run").rename(pictures / "run")
    with pytest.raises(InvalidInput, match="lies inside the source"):
        run.resume(pictures / "run")


def test_data_given_on_resume_is_found_from_anywhere(make_pictures, tmp_path, tiny, monkeypatch):
    out, pictures = tmp_path / "run", make_pictures(tmp_path / "pictures")
    run.train(pictures, out, tiny(), Limits(max_steps=1))
    pictures.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    run.resume(out, ["data=moved"], Limits(max_steps=2))
    assert recipes.read(out / run.RECIPE).data == str(tmp_path / "moved")
    monkeypatch.chdir("/")
    assert run.resume(out, limits=Limits(max_steps=3)).step == 3


def test_a_folder_whose_name_is_not_utf_8_is_trained_on(make_pictures, tmp_path, tiny):
    pictures = make_pictures(tmp_path / os.fsdecode(b"caf\xe9"))
    run.train(pictures, tmp_path / "run", tiny(), Limits(max_steps=1))
    assert run.resume(tmp_path / "run", limits=Limits(max_steps=2)).step == 2
    assert read_bundle(tmp_path / "run" / "last").manifest.provenance["data"] == pictures.name


def test_a_cpu_too_draws_other_noise_for_another_seed(pictures, tmp_path, tiny, monkeypatch):
    asked: list[int] = []
    seed_all = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda number: asked.append(number % 2**32) or seed_all(number))
    steps: set[int] = set()
    for seed in (0, 1, 2):
        run.train(pictures, tmp_path / str(seed), tiny(seed=seed, steps=2, validation=0, sample_every=0))
        steps |= set(asked[-2:])
    assert len(steps) == 6


@pytest.mark.parametrize("seed", [2**31, 2**32 - 1])
def test_every_seed_trains_in_parts_too(seed, pictures, tmp_path, tiny):
    assert run.train(pictures, tmp_path / "run", tiny(seed=seed, accumulate=4, steps=1)).step == 1


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    with pytest.raises(InvalidInput, match="There is no run in"):
        run.resume(tmp_path)


def test_a_run_stopped_before_its_first_checkpoint_starts_anew(finished, pictures, tmp_path, tiny):
    out, _ = finished
    again = tmp_path / "run"
    run.train(pictures, again, tiny(sample_every=8, checkpoint_every=0), Limits(max_steps=1))
    for file in (again / "checkpoints").rglob("*"):
        if file.is_file():
            file.unlink()
    for folder in sorted((again / "checkpoints").rglob("*"), reverse=True):
        folder.rmdir()
    run.resume(again, ["checkpoint_every=2"])
    assert_same(out / "last", again / "last")


def test_a_checkpoint_of_another_network_is_refused_with_what_differs(pictures, tmp_path, tiny):
    run.train(pictures, tmp_path / "run", tiny(), Limits(max_steps=1))
    with pytest.raises(InvalidInput, match="wrong shapes"):
        run.resume(tmp_path / "run", ["network.middle=16"])


def test_one_image_is_enough_to_train(tmp_path, tiny):
    (tmp_path / "one").mkdir()
    Image.new("RGB", (20, 20), "red").save(tmp_path / "one" / "one.png")
    reported = []
    run.train(tmp_path / "one", tmp_path / "run", tiny(steps=2), report=reported.append)
    assert (reported[0]["training_images"], reported[0]["held_back_images"]) == (1, 0)
    assert (tmp_path / "run" / "best").resolve() == (tmp_path / "run" / "last").resolve()


def test_changed_data_is_reported_when_a_run_goes_on(make_pictures, tmp_path, tiny):
    pictures = make_pictures(tmp_path / "pictures")
    run.train(pictures, tmp_path / "run", tiny(), Limits(max_steps=1))
    reported = []
    run.resume(tmp_path / "run", limits=Limits(max_steps=2), report=reported.append)
    Image.new("RGB", (20, 20), "red").save(pictures / "new.png")
    run.resume(tmp_path / "run", limits=Limits(max_steps=3), report=reported.append)
    assert [row["data_changed"] for row in reported if "data_changed" in row] == [False, True]


def test_a_run_that_was_to_be_compiled_and_is_not_says_why(pictures, tmp_path, tiny, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    reported = []
    run.train(pictures, tmp_path / "asked", tiny(compile=True, steps=1), report=reported.append)
    run.train(pictures, tmp_path / "not", tiny(steps=1), report=reported.append)
    said = [row["not_compiled_for_want_of"] for row in reported if "not_compiled_for_want_of" in row]
    assert said == ["a compiler (g++ or clang++)", ""]


def test_unusable_data_leaves_no_run_behind(tmp_path, tiny):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="no images"):
        run.train(tmp_path / "empty", tmp_path / "run", tiny())
    assert not (tmp_path / "run").exists()


def test_runs_of_one_process_may_differ_in_precision(pictures, tmp_path, tiny):
    for precision in ("float32", "bfloat16"):
        run.train(pictures, tmp_path / precision, tiny(precision=precision, steps=1))
    losses = [read_metrics(tmp_path / precision)[0]["loss"] for precision in ("float32", "bfloat16")]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize(("setting", "value"), [("name", "My Model"), ("patch", 8)])
def test_a_model_that_could_not_be_served_is_refused_before_the_first_step(setting, value, pictures, tmp_path, tiny):
    with pytest.raises(InvalidInput, match=setting):
        run.train(pictures, tmp_path / "run", tiny(**{setting: value}))
    assert not (tmp_path / "run").exists()
