"""What the service says about itself: models, readiness, figures, the earlier generator's routes, the page."""

from __future__ import annotations

import base64
import io
import json

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from ddpm_api import Error
from ddpm_service.gateway.listener import Listener
from ddpm_service.gateway.metrics import metrics_app
from ddpm_service.gateway.pico import error_body
from ddpm_service.torchserve.board import State, VersionState

pytestmark = pytest.mark.anyio


async def document(house, path: str, status: int = 200) -> dict:
    async with house.client.get(path) as response:
        assert response.status == status
        return await response.json()


async def test_models_with_their_versions_and_the_reason_of_a_failure(house):
    listed = await document(house, "/v1/models")
    faces = next(model for model in listed["data"] if model["id"] == "faces")
    assert (listed["object"], faces["object"], faces["ready"], faces["image_size"]) == ("list", "model", True, 8)
    assert "faithful" in faces["modes"]
    assert faces["numbers"]["num_images"] == {"minimum": 1, "maximum": 16, "default": 5}
    assert faces["numbers"]["eta"] == {"minimum": 0, "maximum": 1, "default": 0.0}
    assert faces["numbers"]["num_inference_steps"] == {"minimum": 1}
    first, second = faces["versions"]
    assert (first["version"], first["default"], first["state"], first["archive"]) == ("1", True, "ready", "faces_1.mar")
    assert first["defaults"] == {"sampler": "dpmpp_2m", "num_inference_steps": 4}
    assert first["most_calls"] == {"unguided": 100, "guided": [90, 30]}
    assert second["most_calls"] is None
    assert (second["default"], second["state"], second["reason"]) == (False, "failed", "ValueError: broken weights")


async def test_each_version_has_its_own_readiness(house):
    assert (await document(house, "/v1/models/faces/versions/1/ready"))["ready"]
    assert (await document(house, "/v1/models/faces/versions/2/ready", 503))["reason"] == "ValueError: broken weights"
    assert (await document(house, "/v1/models/faces/versions/9/ready", 404))["error"]["field"] == "version"
    assert (await document(house, "/v1/models/nobody/versions/1", 404))["error"]["field"] == "model"
    assert (await document(house, "/v1/models/faces/versions/1"))["terms"] == "Research use only."


async def test_it_is_ready_when_every_default_version_is_whatever_the_others_do(house):
    assert (await document(house, "/readyz"))["status"] == "online"
    assert await document(house, "/ping") == {"status": "Healthy"}
    house.board.put("faces", "3", VersionState("faces_3.mar", State.LOADING))
    await document(house, "/readyz")
    house.board.move("faces", "1", State.LOADING, "its worker has died")
    assert (await document(house, "/readyz", 503))["waiting_for"] == {"faces": "1 is loading"}
    await document(house, "/healthz")
    house.board.move("faces", "3", State.READY)
    house.board.answer("faces", "3")
    await document(house, "/readyz")


async def test_the_root_is_the_page_for_a_browser_and_the_state_for_a_program(house):
    state = await document(house, "/")
    assert (state["status"], state["model_loaded"], state["tokens_needed"]) == ("online", True, False)
    assert (state["image_size"], state["channels"]) == ([8, 8], 3)
    assert (state["models_available"], state["device"], state["cache_enabled"]) == (len(state["models"]), None, True)
    house.board.runs_on("faces", "1", "cuda")
    assert (await document(house, "/"))["device"] == "cuda"
    async with house.client.get("/", headers={"Accept": "text/html,*/*;q=0.8"}) as response:
        page = await response.text()
        assert response.content_type == "text/html"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "page/" in page
    async with house.client.get("/page/app.js") as response:
        assert (response.status, response.headers["Cache-Control"]) == (200, "no-cache")
    await document(house, "/page/nothing.js", 404)


async def test_the_earlier_generators_models_and_config(house):
    listed = await document(house, "/models")
    assert (listed["status"], listed["count"]) == ("success", len(listed["models"]))
    first = listed["models"][0]
    archive = {"path": "faces_1.mar", "extension": ".mar", "size_mb": 1.5}
    assert first == {"name": "faces", "version": "1", **archive}
    config = await document(house, "/config")
    names = [model["name"] for model in listed["models"]]
    assert config["cache_info"] == {"cached_models": len(names), "model_names": names}
    assert (config["cache_enabled"], config["device"], config["models_available"]) == (True, None, len(names))
    assert config["models_directory"] == "model_store"
    assert (config["default_image_size"], config["default_channels"]) == ([8, 8], 3)
    assert config["models"]["faces"]["image_size"] == [8, 8]
    assert config["limits"]["max_open"] == house.door.settings.max_open


async def generate(house, body: dict | None) -> tuple[int, dict]:
    async with house.client.post("/generate", json=body) as response:
        return response.status, await response.json()


async def test_the_earlier_generators_generate(house):
    asked = {"model": "faces", "image_size": [8, 8], "channels": 3, "num_steps": 4, "seed": 5}
    status, answer = await generate(house, asked)
    picture = Image.open(io.BytesIO(base64.b64decode(answer.pop("image"))))
    assert (status, picture.format, picture.size) == (200, "PNG", (8, 8))
    assert (answer["status"], answer["mode"], answer["model_used"]) == ("success", "model", "faces")
    assert (answer["image_size"], answer["channels"], answer["seed"]) == ([8, 8], 3, 5)
    assert house.upstream.requests[0].num_inference_steps == 4
    await generate(house, {"model": "faces"})
    assert house.upstream.requests[1].num_inference_steps == 50


async def test_of_an_unknown_model_the_earlier_generator_says_which_there_are(house):
    status, answer = await generate(house, {"model": "x"})
    assert (status, answer["status"], answer["message"]) == (404, "error", 'Model "x" not found')
    assert answer["available_models"] == list(house.board.models())


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"image_size": [64, 64]}, 422),
        ({"image_size": "8x8"}, 422),
        ({"channels": 1}, 422),
        ({"num_steps": 0}, 422),
        ({"num_steps": "many"}, 422),
        ({"model": "nobody"}, 404),
        ({"model": None}, 422),
        ({"surprise": 1}, 422),
        ({"model": "late"}, 500),
        ({"model": "broken"}, 500),
        ([], 422),
    ],
)
async def test_the_earlier_generator_says_what_is_wrong_and_never_shows_another_picture(house, asked, expected):
    status, answer = await generate(house, {"model": "faces", **asked} if isinstance(asked, dict) else asked)
    assert (status, answer["status"]) == (expected, "error")
    assert answer["message"]
    assert "image" not in answer


async def test_the_earlier_generator_names_fields_as_its_callers_do(house):
    _, answer = await generate(house, {"model": "faces", "num_steps": 0})
    assert answer["error"]["field"] == "num_steps"
    assert answer["message"].startswith("num_steps: 0 is not allowed")
    later = Error(code="out_of_range", message="num_inference_steps must be at most 9.", field="num_inference_steps")
    assert json.loads(error_body(later))["message"] == "num_steps must be at most 9."


async def test_the_model_may_be_left_out_where_there_is_one(house):
    assert (await generate(house, {}))[0] == 422
    for name in list(house.board.models()):
        if name != "faces":
            house.board.remove(name, "1")
    async with house.client.post("/generate") as response:
        assert (await response.json())["model_used"] == "faces"


async def figures(house, port: int) -> dict[tuple[str, ...], float]:
    async with house.client.get(f"http://127.0.0.1:{port}/metrics") as response:
        text = await response.text()
    families = text_string_to_metric_families(text)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


async def test_the_figures_count_what_happened(house):
    metrics = house.door.gate.metrics
    listener = Listener(metrics_app(metrics, "http://127.0.0.1:9"), "127.0.0.1", 0)
    await listener.start()
    body = {"num_images": 2, "preview_every": 2}
    async with house.client.post("/predictions/faces", json=body, headers={"Accept": "text/event-stream"}) as response:
        await response.read()
    for model in ("late", "busy", "nobody-of-this-name"):
        async with house.client.post(f"/predictions/{model}", json={}) as response:
            await response.read()

    seen = await figures(house, listener.port)

    assert seen["ddpm_gateway_requests_total", "faces", "done"] == 1
    assert seen["ddpm_gateway_requests_total", "late", "out_of_memory"] == 1
    assert seen["ddpm_gateway_requests_total", "busy", "busy"] == 1
    assert seen["ddpm_gateway_images_total", "faces"] == 2
    assert seen["ddpm_gateway_first_preview_seconds_count", "faces"] == 1
    assert seen["ddpm_gateway_queue_wait_seconds_sum", "faces"] == pytest.approx(0.1)
    assert seen["ddpm_gateway_refusals_total", "not_found"] == 1
    assert seen["ddpm_gateway_requests_open",] == 0
    assert not any("nobody-of-this-name" in key for key in seen)  # else labels would grow without bound
    async with house.client.get("/metrics") as response:
        assert response.status == 404  # not on the public port
    await listener.stop()


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/ping"])
async def test_a_monitor_may_ask_for_heads_alone(house, path):
    async with house.client.head(path) as response:
        assert (response.status, await response.read()) == (200, b"")


@pytest.mark.parametrize(
    ("path", "document"),
    [("/v1/images/generations", {"model": "lost", "size": "64x64"}), ("/generate", {"model": "lost", "channels": 3})],
)
async def test_of_a_model_whose_archive_is_lost_no_size_is_refused(house, path, document):
    house.board.put("lost", "1", VersionState("lost_1.mar", State.FAILED, "no such archive"))
    async with house.client.post(path, json=document) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (503, "unavailable")
