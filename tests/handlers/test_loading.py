"""A model that cannot be served says so when it is loaded."""

from __future__ import annotations

import json
import shutil

import pytest

from handlers.ddpm_handler import Handler

from .conftest import ROOT


def test_a_model_that_cannot_be_served_says_why_in_a_line(make_context, tmp_path, write_toy_bundle):
    folder = write_toy_bundle(tmp_path / "bundle")
    (folder / "toy.py").write_text("raise SystemExit")

    with pytest.raises(RuntimeError, match=r"toy\.py has changed: its SHA-256 is \w+, bundle\.json says \w+\.$"):
        Handler(make_context(tmp_path))


def test_a_face_detector_that_is_none_is_an_error_at_the_start(make_context, tmp_path, write_toy_bundle, monkeypatch):
    write_toy_bundle(tmp_path / "bundle")
    monkeypatch.setenv("DDPM_FACE_DETECTOR", str(tmp_path / "yunet.onnx"))
    with pytest.raises(RuntimeError, match=r"The face detector's file is not found\.$"):
        Handler(make_context(tmp_path))
    (tmp_path / "yunet.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(RuntimeError, match=r"The face detector's file is not a YuNet ONNX model\.$"):
        Handler(make_context(tmp_path))


def test_statistics_of_another_network_are_found_at_the_start(make_context, tmp_path, monkeypatch):
    monkeypatch.setattr("handlers.loading.measure_max_rows", lambda *_: (1, 0.1))
    monkeypatch.setattr("handlers.loading.measure_guide_cost", lambda *_: 0.5)
    bundle = shutil.copytree(max((ROOT / "models" / "faces-64").iterdir()), tmp_path / "bundle")
    document = json.loads((bundle / "bundle.json").read_text())
    document["statistics"]["wholeness"]["weights"].pop()
    (bundle / "bundle.json").write_text(json.dumps(document))

    with pytest.raises(RuntimeError, match="makes no image"):
        Handler(make_context(tmp_path))
