"""A network's calls as CUDA graphs: recorded once, and then replayed by the GPU itself.

A network of 64 px is some 400 operations. They take a GPU about 2 ms, and the host as long to ask for; a recorded call
is asked for at once. It has one size, so a batch is padded to the next power of two. Nothing here has run on a GPU yet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_core.bundle import Bundle
from ddpm_core.denoiser import Call, Denoiser, called
from ddpm_core.dtypes import is_faithful, pictures
from ddpm_core.timing import in_turn

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Recording:
    """A call of one size.

    Attributes:
        x: (B, C, H, W), where the input is put.
        timestep: (B,), likewise.
        out: (B, C, H, W), where the output is found.
        replay: makes the call.
    """

    x: Tensor
    timestep: Tensor
    out: Tensor
    replay: Callable[[], object]


Record = Callable[[Call, Tensor, Tensor], Recording]


class Replayed:
    """A network's call by recordings, one for each size, which is made when it is first needed.

    No gradient passes. Rows of a batch must be independent.

    Args:
        network: on the device of its inputs.
        record: makes a recording, on buffers for its input.
    """

    def __init__(self, network: nn.Module, record: Record) -> None:
        self._network = network
        self._record = record
        self._recordings: dict[int, Recording] = {}

    def __call__(self, x: Tensor, timestep: Tensor) -> Tensor:
        """Give the network's output for x (B, C, H, W) at timestep (B,), in memory of its own."""
        rows = len(x)
        size = 1 << (rows - 1).bit_length()
        if size not in self._recordings:
            buffer = x.new_zeros(size, *x.shape[1:]).to(memory_format=torch.channels_last)
            self._recordings[size] = self._record(called(self._network), buffer, timestep.new_zeros(size))
        recording = self._recordings[size]
        recording.x[:rows].copy_(x)
        recording.timestep[:rows].copy_(timestep)
        recording.replay()
        return recording.out[:rows].clone()


def cuda_graph(call: Call, x: Tensor, timestep: Tensor) -> Recording:
    """Record a call as a CUDA graph."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            call(x, timestep)  # libraries choose their algorithms, and Inductor compiles, before it is recorded
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_memory()):
        out = call(x, timestep)
    return Recording(x, timestep, out, graph.replay)


@cache
def _memory() -> Any:
    """Give memory for all graphs: one runs after the other, so they may share what lies between input and output."""
    return torch.cuda.graph_pool_handle()


def compiled(network: nn.Module) -> nn.Module:
    """Give the network with Inductor's kernels; they are compiled when it is first called."""
    return torch.compile(network)  # type: ignore[return-value]


_KERNELS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "CUDA graphs": lambda network: network,
    "CUDA graphs of Inductor's kernels": compiled,
}


@torch.inference_mode()
def quickened(bundle: Bundle, denoiser: Denoiser, rows: int, record: Record = cuda_graph) -> Denoiser:
    """Give the fastest that makes the same pictures: the denoiser as it is, replayed, or compiled and replayed.

    Each is tried, which may take minutes. What fails, or makes other pictures, is told in a line of the log.

    Args:
        bundle: the model.
        denoiser: of the bundle, on a GPU.
        rows: images in the largest call; all sizes up to it are recorded.
        record: makes a recording.
    """
    expected = pictures(bundle, denoiser)
    best, least = denoiser, 1.0
    for name, kernels in _KERNELS.items():
        try:
            tried = denoiser.called_by(partial(_replayed, kernels, record))
            # The largest first: smaller ones find their memory again.
            for size in sorted({rows, *(2**k for k in range(rows.bit_length()))}, reverse=True):
                _call(tried, bundle, size)
            if not is_faithful(pictures(bundle, tried), expected):
                raise ValueError("it makes other pictures")
            ours, plain = in_turn([partial(_call, each, bundle, rows) for each in (tried, denoiser)], 6, budget=1.0)
        except Exception as error:
            log.warning("%s are not used: %s: %s", name, type(error).__name__, str(error).partition("\n")[0])
            continue
        share = min(ours) / min(plain)
        log.info("%s: a call of %d images takes %.2f of the time", name, rows, share)
        if share < least:
            best, least = tried, share
    return best


def _replayed(kernels: Callable[[nn.Module], nn.Module], record: Record, network: nn.Module) -> Replayed:
    return Replayed(kernels(network), record)


def _call(denoiser: Denoiser, bundle: Bundle, rows: int) -> None:
    """Have a batch predicted, and by the guide too."""
    x = torch.randn(rows, *bundle.shape, device=denoiser.device)
    level = torch.full((rows,), denoiser.schedule.num_levels // 2, device=denoiser.device)
    r = denoiser(x, level)
    if denoiser.guide is not None:
        denoiser.guided_by(x, level, r)
