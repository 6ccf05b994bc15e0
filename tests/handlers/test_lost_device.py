"""A device that is lost to the process ends it: a new worker may find it well, and this one would only look ready."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.handlers.conftest import ROOT

CODE = """
import sys
from pathlib import Path
import torch
from ts.context import Context, RequestProcessor
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from handlers.ddpm_handler import Handler

folder, metrics, kind, words = sys.argv[1:]
metrics = MetricsCacheYamlImpl(metrics)
metrics.initialize_cache()
context = Context("toy", folder, {}, 101, None, "0.12.0", True, metrics, {"handler": {}})
handler = Handler(context)
handler.engine.max_rows = 4

calls = []
def fail(x, *others):
    calls.append(len(x))
    raise getattr(torch, kind, RuntimeError)(words)
handler.engine.denoiser.network.forward = fail

asked = b'{"num_images": 4, "num_inference_steps": 6, "seed": 1}'
headers = {"Host": "localhost", "content-type": "application/json"}
context.request_processor = [RequestProcessor(headers)]
context.request_ids = {0: "a"}
for call in range(100):
    (answer,) = handler([{"body": bytearray(asked)} if call == 0 else {}], context)
    if context.stopping_criteria[0](answer) is not False:
        break
print("alive", calls)
"""


def worker(folder, kind: str, words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CODE, str(folder), str(ROOT / "handlers" / "metrics.yaml"), kind, words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("AcceleratorError", "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be …"),
        ("RuntimeError", "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_a_worker_whose_device_is_lost_ends_and_says_so(toy_folder, kind, words):
    done = worker(toy_folder, kind, words)

    assert done.returncode == 1
    assert "alive" not in done.stdout
    assert f"the device is lost and this worker ends: {words.splitlines()[0]}" in done.stderr


def test_other_failures_leave_it_alive_and_are_looked_for_row_by_row(toy_folder):
    done = worker(toy_folder, "RuntimeError", "an error of the network's own")

    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "alive [4, 2, 1, 1, 2, 1, 1]")
