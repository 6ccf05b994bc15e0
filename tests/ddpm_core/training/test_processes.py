import os
import subprocess
import sys

import torch
from safetensors.torch import load_file

from ddpm_core.bundle import WEIGHTS
from ddpm_core.training import run
from ddpm_core.training.logbook import read_metrics
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


def launch(arguments, count):
    """Start processes as `torchrun --nproc-per-node` does."""
    common = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, *arguments],
            env={**os.environ, **{k: str(v) for k, v in {**common, "RANK": rank, "LOCAL_RANK": rank}.items()}},
        )
        for rank in range(count)
    ]
    try:
        return [process.wait(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_two_processes_train_as_one_that_computes_the_batch_in_two_parts(pictures, tmp_path, tiny):
    import yaml

    settings = tmp_path / "recipe.yaml"
    settings.write_text(yaml.safe_dump(tiny().model_dump(mode="json")), encoding="utf-8")
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
