"""Reading checkpoints that were pickled, without running anything of them.

`torch.load(weights_only=True)` does the reading: it makes tensors and plain values, and refuses every other name. So
that a pickled model can be read too, each unknown *class* in the file is replaced by an inert `Record` that only holds
its attributes. An unknown name that is *called* – which is how a pickle runs code – is refused, but for a few
constructors of values that are of no use here (paths, numpy's numbers); those give an empty record.
"""

from __future__ import annotations

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ddpm_core.errors import InvalidInput

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")

# What is answered with an empty record when it is called: found in honest checkpoints beside the weights.
_VALUES = {
    "functools.partial",
    "collections.defaultdict",
    "datetime.datetime",
    "datetime.timedelta",
    *(f"pathlib{sub}.{kind}" for sub in ("", "._local") for kind in ("Path", "PosixPath", "WindowsPath")),
    *(f"numpy.{core}.multiarray.{kind}" for core in ("core", "_core") for kind in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "torch.torch_version.TorchVersion",
}
# diffusers keeps a model's settings in these: dictionaries that are made by a call.
_DICTIONARIES = {"diffusers.configuration_utils.FrozenDict"}


_DEEPEST = 100


class _Refused(Exception):
    """A name in the file that is called and not allowed; no UnpicklingError, for torch rewrites those."""


class _Inert(type):
    """The class of the stand-ins: calling one never reaches what it stands for."""

    def __call__(cls, *_: Any, **__: Any) -> Any:
        if cls.__name__ not in _VALUES:
            raise _Refused(cls.__name__)
        return Record.__new__(cls)  # type: ignore[arg-type]  # every inert class is a Record's


class Record(metaclass=_Inert):
    """What is left of an object of an unknown class: the class's name and the attributes.

    Attributes:
        attributes: by name; empty where the object held none.
    """

    attributes: dict[str, Any]

    def __new__(cls, *_: Any) -> Record:
        """Make one, whatever the class was to be made from."""
        made = super().__new__(cls)
        made.__dict__["attributes"] = {}
        return made

    def __setstate__(self, state: Any) -> None:
        """Take the attributes over as data."""
        if isinstance(state, dict):
            self.attributes.update(state)


def read(path: Path) -> Any:
    """Read a checkpoint: mappings, lists, plain values, tensors on the CPU, and records.

    Raises:
        InvalidInput: it wants to run something, or is not a checkpoint.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        unknown = _unknown_names(path)
        stand_ins: list[Any] = [
            (OrderedDict if name in _DICTIONARIES else _Inert(name, (Record,), {}), name) for name in unknown
        ]
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")  # about pickle protocols; what cannot be read is refused
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except _Refused as error:
        _refuse(path, f"it calls {error}, which is not on the list of what may be")
    except RecursionError:
        _refuse(path, "its values are nested too deep")
    except (pickle.UnpicklingError, RuntimeError, SafetensorError) as error:
        # torch puts its advice around the cause; the first sentence is the cause.
        _refuse(path, " ".join(str(error.__context__ or error).split()).split(". ")[0].rstrip("."))
    except (ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, TypeError, ValueError) as error:
        _refuse(path, f"it is damaged or no checkpoint ({type(error).__name__})")
    if _is_deeper(found, _DEEPEST):
        _refuse(path, f"its values are nested more than {_DEEPEST} deep")
    return found


def _is_deeper(value: Any, deepest: int) -> bool:
    """Whether mappings and lists are nested deeper, found without recursion."""
    level, seen = [value], set[int]()
    for _ in range(deepest):
        inner: list[Any] = []
        for each in level:
            if id(each) in seen or not isinstance(each, Mapping | list | tuple | set | Record):
                continue
            seen.add(id(each))
            parts = each.attributes if isinstance(each, Record) else each
            inner += parts.values() if isinstance(parts, Mapping) else parts
        if not inner:
            return False
        level = inner
    return True


def _unknown_names(path: Path) -> list[str]:
    """Give the names in the file that torch does not allow; older files than torch 1.6's show none, and refuse them."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except ValueError:
        return []


def _refuse(path: Path, why: str) -> NoReturn:
    raise InvalidInput(
        "refused_checkpoint",
        f"{path} was not read, and nothing in it was run: {why}. Where you trust it, load it in the program it comes"
        " from and save its tensors alone: torch.save(model.state_dict(), FILE).",
        field="source",
        given=str(path),
        allowed=", ".join(SUFFIXES),
    ) from None
