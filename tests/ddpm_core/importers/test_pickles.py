"""A checkpoint is read without running anything of it."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpm_core.errors import InvalidInput
from ddpm_core.importers import pickles


class Payload:
    """An object whose pickle calls something when it is read."""

    def __init__(self, called: Callable[..., Any], *arguments: Any) -> None:
        self.called, self.arguments = called, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.called, self.arguments


class Settings:
    def __init__(self) -> None:
        self.image_size = 64


PAYLOADS: dict[str, Callable[[str], Payload]] = {
    "a shell": lambda file: Payload(os.system, f"touch {file}"),
    "a program": lambda file: Payload(subprocess.check_call, ["touch", file]),
    "an expression": lambda file: Payload(eval, f"open({file!r}, 'w')"),
    "a file": lambda file: Payload(open, file, "w"),
    "behind a partial": lambda file: Payload(functools.partial, Payload(os.system, f"touch {file}")),
    "among attributes": lambda file: Payload(getattr, Payload(os.system, f"touch {file}"), "real"),
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_a_malicious_pickle_is_refused_and_nothing_in_it_runs(payload, zipped, tmp_path):
    proof = tmp_path / "it-ran"
    held = {"model": {"weight": torch.zeros(1)}, "more": payload(str(proof))}
    torch.save(held, tmp_path / "bad.pt", _use_new_zipfile_serialization=zipped)

    with pytest.raises(InvalidInput, match="nothing in it was run") as refusal:
        pickles.read(tmp_path / "bad.pt")

    assert not proof.exists()
    assert refusal.value.code == "refused_checkpoint"
    assert "torch.save(model.state_dict(), FILE)" in refusal.value.message


def test_the_payload_would_have_run(tmp_path):
    """The oracle of the test above: the same file, read carelessly, does what it wants."""
    torch.save(PAYLOADS["a shell"](str(tmp_path / "it-ran")), tmp_path / "bad.pt")
    torch.load(tmp_path / "bad.pt", weights_only=False)
    assert (tmp_path / "it-ran").exists()


def test_what_is_called_is_named(tmp_path):
    torch.save(Payload(eval, "1"), tmp_path / "bad.pt")
    with pytest.raises(InvalidInput, match=r"calls builtins\.eval"):
        pickles.read(tmp_path / "bad.pt")


def test_an_object_of_an_unknown_class_is_a_record_of_its_attributes(tmp_path):
    torch.save({"settings": Settings()}, tmp_path / "a.pt")
    record = pickles.read(tmp_path / "a.pt")["settings"]
    assert isinstance(record, pickles.Record)
    assert not isinstance(record, Settings)
    assert record.attributes == {"image_size": 64}


def test_what_honest_checkpoints_hold_beside_tensors_does_not_hinder(tmp_path):
    held = {
        "weight": torch.ones(2),
        "best": np.float64(0.1),
        "history": np.zeros(3),
        "folder": Path("runs"),
        "activation": torch.nn.functional.silu,
        "scheduler": functools.partial(min, 1),
        "dtype": torch.float16,
    }
    torch.save(held, tmp_path / "a.pt")
    assert torch.equal(pickles.read(tmp_path / "a.pt")["weight"], torch.ones(2))


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"PK\x03\x04", pickle.dumps({"a": 1}), pickle.dumps([1], protocol=2)[:-3]],
    ids=["empty", "text", "half a zip", "not by torch", "cut"],
)
def test_what_is_no_checkpoint_is_refused(content, tmp_path):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(InvalidInput, match="was not read"):
        pickles.read(tmp_path / "a.pt")


def test_a_compiled_program_is_refused(tmp_path):
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.script(torch.nn.Linear(1, 1)).save(tmp_path / "a.pt")
    with pytest.raises(InvalidInput, match="TorchScript"):
        pickles.read(tmp_path / "a.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OSError, match=r"a\.pt"):
        pickles.read(tmp_path / "a.pt")


def test_a_file_that_is_nested_without_end_is_refused(tmp_path):
    nested = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    with zipfile.ZipFile(tmp_path / "deep.pt", "w") as file:
        file.writestr("deep/data.pkl", nested)
        file.writestr("deep/version", "3")

    with pytest.raises(InvalidInput, match="nested more than 100 deep"):
        pickles.read(tmp_path / "deep.pt")
