"""A GPU made of CPU tensors: it computes real values, refuses to mix devices, and counts what a GPU would be asked for.

Use it as a context, in every thread that works on it:

    with FakeDevice() as device:
        x = torch.randn(4, 3, 8, 8).to(DEVICE)
        before = device.counts
        y = (x + 1).sum().item()
        assert device.counts - before == Counts(kernels=2, downloads=1, waits=1)

It rests on PyTorch's Python backends (`torch.utils.backend_registration`), which are experimental.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor
from torch._C._acc import PrivateUse1Hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

_NAME = "fakegpu"
_OURS = f"{Path(__file__).parent.parent.parent}/"


class _Module(_DummyBackendModule):
    """`torch.fakegpu`: nobody may take it for an accelerator that this machine has."""

    def is_available(self) -> bool:
        return False

    def device_count(self) -> int:
        return 0


class _Hooks(PrivateUse1Hooks):
    """What PyTorch's own code asks a backend."""

    def is_available(self) -> bool:
        return False

    def is_built(self) -> bool:
        return True

    def has_primary_context(self, index: int) -> bool:
        return True


_setup_privateuseone_for_python_backend(_NAME, backend_module=_Module(), hook=_Hooks())
DEVICE = torch.device(_NAME, 0)

# They give another look at the same memory, or memory with nothing in it: no kernel runs.
_NO_KERNEL = {
    "_reshape_alias", "_unsafe_view", "alias", "as_strided", "chunk", "detach", "detach_", "diagonal", "empty",
    "empty_like", "empty_strided", "expand", "lift_fresh", "movedim", "narrow", "new_empty", "new_empty_strided",
    "permute", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unfold",
    "unsqueeze", "view", "view_as_real",
}  # fmt: skip
# Their result, or its shape, is on the host: the host waits for the device.
_WAITS = {"_local_scalar_dense", "equal", "is_nonzero", "item", "masked_select", "nonzero", "unique_dim", "_unique2"}


@dataclass(frozen=True)
class Counts:
    """What a GPU was asked for.

    Attributes:
        kernels: operations launched.
        uploads: copies from the host to the device.
        downloads: copies from the device to the host.
        waits: those of the copies for which the host waits: all that are not `non_blocking`.
    """

    kernels: int = 0
    uploads: int = 0
    downloads: int = 0
    waits: int = 0

    def __sub__(self, before: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) - getattr(before, f.name) for f in fields(self)))


class FakeDevice(TorchDispatchMode):
    """The device, while it is entered.

    Attributes:
        counts: since it was made.
        places: how often each line of this repository asked for something: ("upload", "ddpm_core/engine.py:7") → 3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()
        self.places: Counter[tuple[str, str]] = Counter()
        self._is_aside = False

    def __enter__(self) -> Self:
        global _current
        self._outer = _current, torch._C._only_lift_cpu_tensors()
        _current = self
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device=DEVICE) is then a copy of the host's numbers
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        global _current
        super().__exit__(*error)
        _current, only_cpu = self._outer
        torch._C._set_only_lift_cpu_tensors(only_cpu)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Count nothing meanwhile: what is around a network can be counted without it."""
        outer, self._is_aside = self._is_aside, True
        try:
            yield
        finally:
            self._is_aside = outer

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch._C._dispatch_has_kernel_for_dispatch_key(operation.name(), "CompositeImplicitAutograd"):
            with self:  # under inference_mode such an operation comes whole; a device sees its parts
                parts = operation.decompose(*args, **(kwargs or {}))
                if parts is not NotImplemented:
                    return parts
        return self.run(operation, args, kwargs or {})

    def run(self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do an operation on the values, if a device could, and count it."""
        name = operation._schema.name.removeprefix("aten::")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = [tensor for tensor in tensors if isinstance(tensor, _OnDevice)]
        if name == "_to_copy":
            return self._copy(operation, args[0], dict(kwargs))
        if name == "is_pinned":
            return False
        if name == "_pin_memory":
            return args[0]
        makes_here = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == _NAME
        if not here and not makes_here:
            return operation(*args, **kwargs)
        blocking = not kwargs.get("non_blocking", name == "copy_" and args[2:3] == (True,))
        for tensor in tensors:
            if not isinstance(tensor, _OnDevice):
                self._check_mix(name, tensor, into=args[0], blocking=blocking)
        inside = tree_map_only(_OnDevice, lambda tensor: tensor.values, (args, kwargs))
        if makes_here:
            inside[1]["device"] = "cpu"
        result = operation(*inside[0], **inside[1])
        if name in _WAITS or (name == "index" and any(t.dtype in (torch.bool, torch.uint8) for t in here[1:])):
            self._count("download")
        if name not in _NO_KERNEL and name not in ("_local_scalar_dense", "item", "copy_"):
            self._count("kernel")
        if name == "copy_" and isinstance(args[0], _OnDevice) and isinstance(args[1], _OnDevice):
            self._count("kernel")
        if operation._schema.is_mutable and result is inside[0][0]:
            return args[0]
        return tree_map_only(Tensor, _on_device, result)

    def _copy(self, operation: Any, source: Tensor, how: dict[str, Any]) -> Tensor:
        device, blocking = how.pop("device", None), not how.pop("non_blocking", False)
        how.pop("pin_memory", None)
        is_here = isinstance(source, _OnDevice)
        stays_here = torch.device(device).type == _NAME if device is not None else is_here
        if is_here:
            self._count("kernel" if stays_here else "download", blocking=blocking)
        elif stays_here:
            self._count("upload", blocking=blocking)
        values: Tensor = operation(source.values if isinstance(source, _OnDevice) else source, **how)
        return _OnDevice(values) if stays_here else values

    def _check_mix(self, name: str, stranger: Tensor, *, into: Any, blocking: bool) -> None:
        """Let through what CUDA takes of the host's tensors beside its own: numbers, indices, the ends of a copy."""
        if name == "copy_":
            self._count("upload" if isinstance(into, _OnDevice) else "download", blocking=blocking)
        elif name in ("index", "index_put", "index_put_", "_index_put_impl_") and isinstance(into, _OnDevice):
            self._count("upload")
        elif stranger.dim() > 0:
            raise RuntimeError(f"Expected all tensors to be on the same device: {name} at {_place()}")

    def _count(self, what: str, *, blocking: bool = True) -> None:
        if self._is_aside:
            return
        before, is_copy = self.counts, what != "kernel"
        self.counts = replace(
            before,
            **{f"{what}s": getattr(before, f"{what}s") + 1},
            waits=before.waits + (is_copy and blocking),
        )
        self.places[what, _place()] += 1


class _OnDevice(Tensor):
    """A tensor on the fake device; its values are a tensor on the CPU."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor, *, requires_grad: bool = False) -> _OnDevice:
        made: _OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
            requires_grad=requires_grad,
        )
        made.values = values
        return made

    def __init__(self, values: Tensor, *, requires_grad: bool = False) -> None:
        """Take what `__new__` has taken."""

    def __repr__(self, **_: Any) -> str:
        return f"{self.values!r} on {DEVICE}"

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if _current is None:
            raise RuntimeError(f"{operation} works on {DEVICE}, which is not entered")
        return _current.run(operation, args, kwargs or {})

    def tolist(self) -> Any:
        if _current is not None:
            _current._count("download")
        return self.values.tolist()


_current: FakeDevice | None = None


def _on_device(tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, _OnDevice) else _OnDevice(tensor)


def _place() -> str:
    """Name the line of ours that is being carried out, this file left out."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_OURS) and file != __file__ and "/.venv/" not in file:
            return f"{file.removeprefix(_OURS)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def counted(device: FakeDevice, call: Callable[[], object]) -> Counts:
    """Give what a call asks the device for."""
    before = device.counts
    call()
    return device.counts - before
