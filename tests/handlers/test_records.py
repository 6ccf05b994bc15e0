"""What is recorded of a request: its id and figures, nothing of the picture."""

from __future__ import annotations

import base64
import logging
import re

import pytest


@pytest.mark.parametrize("given", ["abc-1.2_3", "A" * 64])
def test_a_harmless_request_id_is_taken(given, frontend):
    job = frontend.json({"num_inference_steps": 1}, X_REQUEST_ID=given)
    frontend.finish(job)

    assert job.json["id"] == given


@pytest.mark.parametrize("given", ["", "a b", "a\r\nSet-Cookie: x", "A" * 65, "ä"])
def test_any_other_request_id_is_replaced_and_reaches_no_header(given, frontend):
    job = frontend.json({"num_inference_steps": 1}, X_Request_Id=given)
    frontend.finish(job)

    assert job.json["id"] == job.key
    assert set(job.response_headers) == {"content-type"}


def test_figures_are_told_to_torchserve(frontend, selfie, caplog):
    caplog.set_level(logging.INFO)
    good = frontend.form({"image": selfie, "num_images": b"3", "num_inference_steps": b"2", "mode": b"faithful"})
    bad = frontend.json({"num_images": 0})
    frontend.finish(good, bad)

    def told(name: str, labels: str = "") -> list[float]:
        pattern = rf"\[METRICS\]{name}\.\w+:([\d.e-]+)\|#ModelName:toy,ModelVersion:1\.0{labels}\|"
        return [float(value) for value in re.findall(pattern, caplog.text)]

    def figure(name: str, labels: str = "") -> float:
        return sum(told(name, labels))

    assert figure("ddpm_ticks_total") == 2
    assert figure("ddpm_row_steps_total") == 6
    assert figure("ddpm_images_total", ",Mode:faithful") == 3
    assert figure("ddpm_rejected_total", ",Reason:out_of_range") == 1
    assert figure("ddpm_queue_wait_seconds") >= 0
    assert figure("ddpm_memory_bytes", ",Where:host") > 1e7
    assert told("ddpm_max_rows")[-1] == frontend.handler.engine.max_rows
    assert figure("ddpm_tick_seconds_total") > 0


def test_nothing_of_a_request_is_logged(frontend, selfie, caplog):
    caplog.set_level(logging.DEBUG)
    jobs = [
        frontend.raw(selfie),
        frontend.json({"image": base64.b64encode(selfie).decode()}),
        frontend.raw(selfie[:99]),
    ]
    frontend.finish(*jobs)

    lines = [record.getMessage() for record in caplog.records if "[METRICS]" not in record.getMessage()]
    assert [line for line in lines if not line.startswith(("STREAM", "Image: failed"))] == []
