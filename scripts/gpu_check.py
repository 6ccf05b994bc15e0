#!/usr/bin/env python3
"""Nine minutes on a GPU: is all right there, and how fast. Without one it runs on the CPU, with `--tiny` sizes.

It needs no network, and no installation but PyTorch and the wheels of `make gpu-wheels`: `make gpu-check` runs it here,
docs/operations.md says how it is run elsewhere. The result is one JSON file, written anew after every step, so that a
machine that is taken away leaves what was measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from gpu_steps import pictures, serving, speed, training, trouble  # noqa: E402
from gpu_steps.setting import Setting  # noqa: E402

STEPS: Mapping[str, Callable[[Setting], dict[str, Any]]] = {
    "versions": pictures.versions,
    "lost_device": trouble.lost_device,
    "parity": pictures.parity,
    "together": pictures.together,
    "calls": speed.calls,
    "tick": speed.tick,
    "graphs": speed.graphs,
    "throughput": serving.throughput,
    "handler": serving.handler,
    "memory": trouble.memory,
    "training": training.training,
}
"""In the order in which they would be missed least if time ran out, the last ones first."""


def main() -> int:
    """Run the steps, each on its own; tell how each ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-check.json"), help="the result")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU: does it work, not how fast")
    parser.add_argument("--minutes", type=float, default=9.0, help="after so many no further step is begun")
    parser.add_argument("--step", action="append", choices=STEPS, help="this one alone; may be repeated")
    arguments = parser.parse_args()

    begin = time.monotonic()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting.here(tiny=arguments.tiny, folder=Path(folder))
        for name in arguments.step or STEPS:
            if time.monotonic() - begin > 60 * arguments.minutes:
                results[name] = {"left_out": "no time was left"}
            else:
                results[name] = _outcome(STEPS[name], setting)
            arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            print(f"{time.monotonic() - begin:6.1f} s  {name}: {_in_short(results[name])}", flush=True)
    return int(any("error" in result for result in results.values()))


def _outcome(step: Callable[[Setting], dict[str, Any]], setting: Setting) -> dict[str, Any]:
    begin = time.monotonic()
    try:
        result = step(setting)
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}", "where": traceback.format_exc().splitlines()[-8:]}
    return {"seconds": round(time.monotonic() - begin, 1), **result}


def _in_short(result: Mapping[str, Any]) -> str:
    return next((f"{key.upper()} {result[key]}" for key in ("error", "left_out") if key in result), "done")


if __name__ == "__main__":
    sys.exit(main())
