import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ddpm_core.bundle import WEIGHTS
from ddpm_core.training import run
from ddpm_core.training.logbook import read_metrics
from ddpm_core.training.loop import agree_every
from ddpm_service.torchserve.server import free_port

CODE = """
import sys
from pathlib import Path
from ddpm_core.training import recipe, run
from ddpm_core.training.loop import Limits
pictures, out, settings = map(Path, sys.argv[1:4])
run.train(pictures, out, recipe.read(settings), Limits(max_steps=3))
run.resume(out)
"""


SLOW = """
import os, sys, time
from datetime import timedelta
from pathlib import Path
import torch.distributed
from ddpm_core.training import machine, recipe, run
pictures, out, settings = map(Path, sys.argv[1:4])
out.with_name(f"here-{os.environ['RANK']}").touch()
while len(list(out.parent.glob("here-*"))) < 2:  # who is late is not who is silent
    time.sleep(0.1)
init = torch.distributed.init_process_group
torch.distributed.init_process_group = lambda *a, **k: init(*a, **k | {"timeout": timedelta(seconds=10)})
accelerator = run.accelerator_for(recipe.read(settings))
with machine.first_process_first(accelerator):
    if accelerator.is_main_process:
        time.sleep(15)
        out.touch()
    assert out.exists()
time.sleep(1)
"""

STOPPED = """
import sys
from pathlib import Path
import torch.distributed
from ddpm_core.errors import Interrupted
from ddpm_core.training import loop, recipe, run
pictures, out, settings = map(Path, sys.argv[1:4])
loop._STEPS_TO_AGREE = {"cpu": 3}
try:
    run.train(pictures, out, recipe.read(settings), loop.Limits(stop=lambda: torch.distributed.get_rank() == 1))
except Interrupted as stopped:
    sys.exit(0 if "step 3;" in str(stopped) else 1)
sys.exit(2)
"""


def launch(arguments, count, code=CODE):
    """Start processes as `torchrun --nproc-per-node` does."""
    common = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, **{k: str(v) for k, v in {**common, "RANK": rank, "LOCAL_RANK": rank}.items()}},
        )
        for rank in range(count)
    ]
    try:
        return [process.wait(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_two_processes_train_as_one_that_computes_the_batch_in_two_parts(pictures, tmp_path, tiny, settings):
    assert launch([str(pictures), str(tmp_path / "two"), str(settings)], 2) == [0, 0]
    run.train(pictures, tmp_path / "one", tiny(accumulate=2))

    two, one = (load_file(tmp_path / name / "last" / WEIGHTS) for name in ("two", "one"))
    assert two.keys() == one.keys()
    for key in two:
        # Of a weight's way of up to 16e-3; AdamW makes much of the last bits, in which sums over threads differ.
        torch.testing.assert_close(two[key], one[key], atol=2e-4, rtol=0)
    rows = [read_metrics(tmp_path / name) for name in ("two", "one")]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    assert [row["images"] for row in rows[0] if "loss" in row] == [8 * step for step in range(1, 9)]
    for a, b in zip(*rows, strict=True):
        key = "loss" if "loss" in a else "validation_loss"
        torch.testing.assert_close(a[key], b[key], atol=1e-4, rtol=1e-3)


@pytest.fixture
def settings(tmp_path, tiny):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(tiny().model_dump(mode="json")), encoding="utf-8")
    return file


def test_the_others_wait_for_the_first_one_longer_than_for_what_they_say_to_each_other(pictures, tmp_path, settings):
    assert launch([str(pictures), str(tmp_path / "run"), str(settings)], 2, SLOW) == [0, 0]


def test_a_wish_to_stop_holds_for_all_at_the_next_step_at_which_they_talk(pictures, tmp_path, settings):
    assert launch([str(pictures), str(tmp_path / "run"), str(settings)], 2, STOPPED) == [0, 0]


def test_processes_on_gpus_talk_about_stopping_every_ten_steps():
    def every(device, processes):
        return agree_every(SimpleNamespace(device=torch.device(device), num_processes=processes))

    assert (every("cuda", 2), every("cuda", 1), every("cpu", 2)) == (10, 1, 1)
