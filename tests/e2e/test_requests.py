"""What people send to TorchServe itself, and what they get, with the embedded model."""

from __future__ import annotations

import base64
import http.client
import io
import json
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from PIL import Image

pytestmark = pytest.mark.torchserve

JSON = {"Accept": "application/json"}


def opened(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file))


# -- ways to send a selfie


@pytest.mark.parametrize("content_type", [None, "image/png", "application/octet-stream", "text/plain"])
def test_a_raw_picture_gives_a_sheet_of_five_whatever_it_calls_itself(content_type, served, selfie):
    answer = served.post("toy", data=selfie, headers={"Content-Type": content_type})

    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert opened(answer.content).size == (96, 64)
    assert "no-store" in answer.headers["cache-control"]


def test_a_file_put_by_curl_t_is_a_raw_picture(served, selfie):
    answer = requests.put(served.url(served.face_model), data=selfie, timeout=90)

    assert opened(answer.content).size == (192, 128)


def test_a_form(served, selfie):
    fields = {"num_images": "1", "seed": "3", "mode": "faithful", "output_format": "jpeg"}
    answer = served.post(served.face_model, files={"image": ("me.png", selfie, "image/png")}, data=fields, headers=JSON)

    result = answer.json()
    assert (len(result["images"]), result["images"][0]["content_type"]) == (1, "image/jpeg")
    assert (result["parameters"]["mode"], result["parameters"]["seed"]) == ("faithful", 3)
    assert len(result["target"]["faces"]) == 1


def test_json_with_base64(served, selfie):
    answer = served.post(served.face_model, {"image": base64.b64encode(selfie).decode(), "num_images": 2})

    result = answer.json()
    assert result["model"] == served.face_model
    assert result["timing"]["calls"] == result["parameters"]["num_inference_steps"] > 0
    assert [opened(base64.b64decode(image["b64_json"])).size for image in result["images"]] == [(64, 64)] * 2


def test_an_empty_json_object_is_unguided(served):
    result = served.post(served.face_model, {}).json()

    assert (len(result["images"]), result["parameters"]["mode"], result["target"]) == (1, "none", None)


def test_a_form_in_the_url_encoding(served):
    answer = served.post(served.face_model, data={"num_inference_steps": "2", "seed": "4"}, headers=JSON)

    assert answer.json()["images"][0]["seed"] == 4


# -- ways to get the answer


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("image/webp", "image/webp"),
        ("image/*;q=0.5, application/json", "application/json"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("text/event-stream", "text/event-stream"),
        ("*/*", "application/json"),
    ],
)
def test_the_answer_comes_as_accepted(accept, content_type, served):
    answer = served.post(served.face_model, {"num_inference_steps": 3}, headers={"Accept": accept})

    assert (answer.status_code, answer.headers["content-type"]) == (200, content_type)
    if content_type == "text/event-stream":
        assert answer.text.startswith("event: started\ndata: {")
        assert "event: end\n" in answer.text


def test_one_step_does_not_hang(served):
    for accept in ("application/json", "text/event-stream", "image/png"):
        answer = served.post(served.face_model, {"num_inference_steps": 1}, headers={"Accept": accept})
        assert (answer.status_code, answer.headers["content-type"]) == (200, accept)


def test_a_seed_gives_its_image_whatever_shares_the_batch(served):
    def pixels(answer: requests.Response) -> np.ndarray:
        return np.asarray(opened(base64.b64decode(answer.json()["images"][0]["b64_json"])), int)

    wanted = {"seed": 11, "num_inference_steps": 6}
    alone = pixels(served.post(served.face_model, wanted))
    beside = served.stream(served.face_model, num_images=2, num_inference_steps=25)
    beside.wait_for("started")
    together = pixels(served.post(served.face_model, wanted))
    beside.join(60)

    assert beside.names[-1] == "end"
    assert np.abs(alone - together).max() <= 1
    assert np.abs(alone - pixels(served.post(served.face_model, wanted | {"seed": 12}))).max() > 1


# -- what is refused


def picture(size: tuple[int, int] = (64, 64), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(file, kind)
    return file.getvalue()


def animation() -> bytes:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("teal", "pink")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


BAD = {
    "nothing": ({"data": b""}, 422, "image"),
    "not an image": ({"data": b"%PDF-1.4 hello"}, 415, "image"),
    "a truncated image": ({"data": picture()[:2000]}, 422, "image"),
    "a tiny image": ({"data": picture((4, 4))}, 422, "image"),
    "an animation": ({"data": animation()}, 422, "image"),
    "JSON that is none": ({"data": b'{"num_images": ', "headers": {"Content-Type": "application/json"}}, 400, None),
    "JSON that is no UTF-8": ({"data": b"\xff\xfe", "headers": {"Content-Type": "application/json"}}, 400, None),
    "a JSON list": ({"json": [1, 2]}, 422, None),
    "an unknown field": ({"json": {"strenght": 0.4}}, 422, "strenght"),
    "a wrong type": ({"json": {"seed": "7"}}, 422, "seed"),
    "out of range": ({"json": {"num_images": 17}}, 422, "num_images"),
    "not a number": ({"data": b'{"eta": NaN}', "headers": {"Content-Type": "application/json"}}, 422, "eta"),
    "infinity": ({"data": b'{"eta": 1e999}', "headers": {"Content-Type": "application/json"}}, 422, "eta"),
    "too much work": ({"json": {"num_images": 16, "num_inference_steps": 999}}, 422, "num_inference_steps"),
    "no base64": ({"json": {"image": "§"}}, 422, "image"),
    "an empty form": (
        {"data": b"--x--\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        422,
        None,
    ),
    "a malformed form": ({"data": b"-", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 422, None),
    "not acceptable": ({"json": {}, "headers": {"Accept": "text/html"}}, 406, "Accept"),
}


def test_bad_input_is_explained_beside_a_running_request(served):
    worker = served.worker("toy", "1.0")
    beside = served.stream("toy", num_inference_steps=150)
    beside.wait_for("started")

    for name, (sent, status, field) in BAD.items():
        answer = served.post("toy", **sent)
        assert answer.status_code == status, name
        error = answer.json()["error"]
        assert (error["field"], bool(error["message"])) == (field, True), name
    assert requests.get(served.url("toy"), timeout=30).status_code == 422

    beside.join(60)
    assert beside.names[-1] == "end"
    assert worker.is_running()


@pytest.mark.parametrize("model", ["no-such-model", "toy/9.9"])
def test_an_unknown_model_is_torchserves_own_404(model, served):
    answer = served.post(model, {})

    assert (answer.status_code, answer.json()["code"]) == (404, 404)


def test_a_binary_body_in_the_url_encoding_fails_without_a_trace(served, selfie):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    before = len(served.log.getvalue())
    answer = served.post(served.face_model, data=selfie, headers=headers)

    assert answer.status_code >= 400
    assert served.log.getvalue()[before:] == ""


def test_a_body_over_the_limit_is_refused(served):
    address = urlsplit(served.server.inference_url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    connection.putrequest("POST", f"/predictions/{served.face_model}")
    connection.putheader("Content-Length", str(40 * 2**20))
    connection.endheaders()

    assert connection.getresponse().status == 413
    connection.close()
    assert served.post(served.face_model, {"num_inference_steps": 1}).ok


def test_a_body_of_ten_megabytes_is_not(served):
    file = io.BytesIO()
    Image.effect_noise((1900, 1800), 90).convert("RGB").save(file, "BMP")
    assert len(file.getvalue()) > 10**7
    answer = served.post("toy", data=file.getvalue(), headers=JSON)

    assert len(answer.json()["images"]) == 5


# -- two versions, figures


def test_two_versions_answer_side_by_side(served):
    streams = [served.stream(f"toy/{version}", num_inference_steps=40) for version in ("1.0", "2.0")]
    for stream in streams:
        stream.join(60)

    assert [stream.events[0].version for stream in streams] == ["1.0", "2.0"]
    assert [stream.names[-1] for stream in streams] == ["end", "end"]
    assert served.post("toy", {"num_inference_steps": 2}).json()["version"] == "1.0"


def test_figures_are_at_the_metrics_port(served):
    before = {name: served.figure(name, "toy") for name in ("ddpm_images_total", "ddpm_rejected_total")}
    assert served.post("toy", {"num_inference_steps": 3, "num_images": 4}).ok
    assert served.post("toy", {"num_images": 0}).status_code == 422

    assert served.figure("ddpm_images_total", "toy") - before["ddpm_images_total"] == 4
    assert served.figure("ddpm_rejected_total", "toy") - before["ddpm_rejected_total"] == 1
    assert served.figure("ddpm_row_steps_total", "toy") >= 12
    assert served.figure("ddpm_queue_wait_seconds_count", "toy") >= 1
    assert served.figure("ddpm_requests_running", "toy") == 0
    assert "Failed to update backend metric" not in served.log.getvalue()


def test_a_picture_says_how_it_was_made(served):
    answer = served.post(served.face_model, {"seed": 9, "num_inference_steps": 2}, headers={"Accept": "image/png"})

    inside = json.loads(opened(answer.content).info["parameters"])
    assert (inside["seed"], inside["num_inference_steps"], inside["model"]) == (9, 2, served.face_model)
