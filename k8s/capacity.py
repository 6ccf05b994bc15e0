"""How many pods a rate of requests needs, and at which queue wait to add one, from the measured time of a step.

    python k8s/capacity.py --step-ms 8 --rate 1 4 16 --wait 5

A pod is one queue with one server whose service times are those of the mix (M/G/1): the share of requests that wait
longer than t is about u·exp(−t·(1 − u)/m), with the utilisation u and m = E[S²] / 2E[S] (Kingman's approximation,
exact for exponential service times). The engine lets short requests go first, so people wait less than this says.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

# What the page asks for, the best five of ten in `likeness` before all: (images, calls with the guide's, share).
MIX = ((10, 4, 0.6), (5, 5, 0.15), (5, 4, 0.15), (1, 10, 0.1))
# Nineteen of twenty requests begin within the wait that is promised.
LATE = 0.05
# A pod is added at this share of what the running ones can do: the rest is for the time until the new one is ready.
SCALE_AT = 0.8


@dataclass(frozen=True)
class Pod:
    """One pod: the mean and the second moment of a request's service time, in seconds."""

    mean: float
    square: float

    @classmethod
    def of(cls, step_seconds: float, mix: tuple[tuple[int, int, float], ...] = MIX) -> Pod:
        """A pod whose network needs so long for one step of one image, in full batches."""
        works = [(images * calls * step_seconds, share) for images, calls, share in mix]
        return cls(sum(work * share for work, share in works), sum(work**2 * share for work, share in works))

    def late(self, rate: float, wait: float) -> float:
        """The share of requests that wait longer than `wait` seconds at `rate` requests a second."""
        use = rate * self.mean
        if use >= 1:
            return 1.0
        return use * math.exp(-wait * (1 - use) * 2 * self.mean / self.square)

    def highest_rate(self, wait: float) -> float:
        """Requests a second up to which no more than `LATE` of them wait longer than `wait` seconds."""
        low, high = 0.0, 1 / self.mean
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.late(middle, wait) <= LATE else (low, middle)
        return low

    def wait_of_nine_in_ten(self, rate: float) -> float:
        """Seconds that nine of ten requests wait at most at `rate` requests a second."""
        use = rate * self.mean
        return max(0.0, math.log(use / 0.1)) * self.square / (2 * self.mean * (1 - use))


def table(steps_ms: list[float], rates: list[float], wait: float) -> str:
    """The capacity table in Markdown."""
    rows = [
        ["step of one image", "a request", "requests/s a pod", *(f"pods for {rate:g}/s" for rate in rates), "scale at"]
    ]
    rows.append(["---"] * len(rows[0]))
    for step in steps_ms:
        pod = Pod.of(step / 1000)
        highest = pod.highest_rate(wait)
        pods = [str(math.ceil(rate / highest)) for rate in rates]
        threshold = pod.wait_of_nine_in_ten(SCALE_AT * highest)
        rows.append([f"{step:g} ms", f"{pod.mean:.2f} s", f"{highest:.2f}", *pods, f"{threshold:.1f} s"])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="How many pods a rate of requests needs.")
    parser.add_argument("--step-ms", type=float, nargs="+", required=True, help="milliseconds of one image's step")
    parser.add_argument("--rate", type=float, nargs="+", default=[1.0, 4.0, 16.0], help="requests a second, in all")
    parser.add_argument("--wait", type=float, default=5.0, help="seconds in which 19 of 20 requests have begun")
    options = parser.parse_args()
    print(table(options.step_ms, options.rate, options.wait))


if __name__ == "__main__":
    main()
