"""Faces are personal: nothing of an upload is in a log or on the disk; and the worker does not grow."""

from __future__ import annotations

import base64
import io
import json

import pytest
import requests
from PIL import Image

from tests.e2e.traces import traces, watched

pytestmark = pytest.mark.torchserve

FILE_NAME = "holiday-of-a-stranger.png"


def test_nothing_of_an_upload_is_logged_or_written(served, selfie):
    model, cut = served.face_model, selfie[: len(selfie) // 2]
    packed = base64.b64encode(selfie)
    urlencoded = {"Content-Type": "application/x-www-form-urlencoded"}
    as_json = {"Content-Type": "application/json"}
    multipart = {"Content-Type": "multipart/form-data; boundary=x"}
    few = {"num_images": "1", "num_inference_steps": "2"}
    large = io.BytesIO()  # TorchServe's limit for parts in memory is 6.5 MB
    Image.effect_noise((1900, 1800), 90).convert("RGB").save(large, "BMP")
    assert served.server.temporary is not None

    with watched(served.server.temporary) as written:
        for document in ({"image": packed.decode()}, {"image": packed.decode()[:-3]}, {packed.decode(): 1}):
            served.post(model, document | few)
        for body in (selfie, cut):
            served.post(model, data=body)
            served.post(model, files={"image": (FILE_NAME, body, "image/png")}, data=few)
            served.post(model, files={FILE_NAME: (FILE_NAME, body, "text/plain")})
            for headers in (urlencoded, as_json, multipart, {"Content-Type": "text/plain"}):
                served.post(model, data=body, headers=headers)
        served.post(model, data=json.dumps({"image": packed.decode()})[:-5].encode(), headers=as_json)
        served.post(f"no-such-model/{FILE_NAME}", data=selfie)
        leaving = served.stream(model, image=packed.decode(), num_inference_steps=200)
        leaving.wait_for("started")
        leaving.leave()
        requests.post(f"{served.server.inference_url}/nowhere/{FILE_NAME}", data=selfie, timeout=30)
        assert served.post(model, files={"image": (FILE_NAME, large.getvalue())}, data=few).ok

    assert written == []
    log = served.log.getvalue().encode()
    assert b"MODEL_LOG" in log
    assert [piece for piece in (*traces(selfie), *traces(packed), FILE_NAME.encode()) if piece in log] == []
    for file in served.server.temporary.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        assert [piece for piece in traces(selfie) if piece in content] == [], file


def test_the_worker_does_not_grow(served, selfie):
    model = served.face_model
    version = served.management.describe(model)[0].version
    document = {"image": base64.b64encode(selfie).decode(), "num_images": 2, "num_inference_steps": 2}

    def twenty_requests() -> int:
        for i in range(20):
            if i % 5 == 0:
                served.post(model, data=selfie[:5000])
            elif i % 5 == 1:
                leaving = served.stream(model, image=document["image"], num_inference_steps=300)
                leaving.wait_for("started")
                leaving.leave()
            else:
                assert served.post(model, document).ok
        return served.worker(model, version).memory_info().rss

    twenty_requests()  # allocators fill up
    before = twenty_requests()
    after = twenty_requests()

    assert after < 1.5 * 2**30
    assert after - before < 16 * 2**20
