"""A model that cannot be served says so when it is loaded."""

from __future__ import annotations

import pytest

from handlers.ddpm_handler import Handler


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
