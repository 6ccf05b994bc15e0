"""The TorchServe handler: preprocess, inference and postprocess around the engine. Never raises at a request.

TorchServe (continuous batching) calls it with every open request, again and again; a request comes with its data
once, later with its id alone, and no longer when its client has left.

How a request ends: an answer that is complete in the first call that answers it is a plain response (criterion None,
which alone may carry the status of an error, and after chunks only breaks the connection); any other is chunks (False)
up to the last one (True, on which a first answer would hang).

A selfie is decoded in a helper process, and nobody waits for it. Until it is decoded its request is left out of what
is answered, by which its status stays open: TorchServe sends nothing for an id that is taken out of its own table. A
stream that waits for long begins all the same, for heartbeats: the front door takes a silence among others who are
answered for a request that TorchServe has lost.

On a GPU pictures are encoded by threads while the next steps are made; a request's events keep their order.
"""

from __future__ import annotations

import logging
import math
import os
import resource
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddpm_api import Error, Mode, Notice, OutputFormat, Rendering, Sampler
from ddpm_api.render import JSON, Kind, Offer
from ddpm_core import events
from ddpm_core.faces import Target
from ddpm_core.gate import Judgement
from ddpm_core.plan import make_plan
from handlers.answer import About, Answer, describe_target
from handlers.cores import available_cores
from handlers.failure import explain
from handlers.intake import Arrival, asks_to_describe, over_grpc, read, request_id
from handlers.loading import load_engine
from handlers.meters import Meters, device_memory, host_memory
from handlers.opening import UNJUDGED, Openings
from handlers.settings import read_settings

log = logging.getLogger(__name__)

_DOCUMENT = Offer(Kind.JSON, JSON, OutputFormat.PNG)
_FORGOTTEN = Error(code="unavailable", message="The service paused and gave this request up; it may be tried again.")
_OUT_OF_TIME = Error(
    code="timeout", message="The answer took longer than a gRPC call may last here; HTTP has no such limit."
)


class Handler:
    """One model version in one worker.

    Args:
        context: TorchServe's, at load.

    Raises:
        RuntimeError: the model cannot be served; one line says why.
    """

    def __init__(self, context: Any) -> None:
        # TorchServe would log a traceback for each body that it cannot decode.
        os.environ["TS_DECODE_INPUT_REQUEST"] = "false"
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core holds faces
        try:
            self.settings = read_settings((context.model_yaml_config or {}).get("handler"))
        except ValueError as error:
            raise RuntimeError(str(error)) from None
        properties = context.system_properties
        bundle = Path(properties["model_dir"]) / "bundle"
        self.pipeline, self.engine = load_engine(bundle, properties.get("gpu_id"), self.settings)
        # On a CPU they would take turns with the next step, which an answer would have to wait for.
        self.encoders = ThreadPoolExecutor(available_cores(), "encode") if self.engine.ahead else None
        manifest = self.pipeline.bundle.manifest
        self._identity = (manifest.name, manifest.version)
        self._meters = Meters(context.metrics, *self._identity)
        self._answers: dict[str, Answer] = {}  # of open requests
        self._opening = Openings(self.pipeline)  # not answered yet
        self._lost: dict[str, Answer] = {}  # of requests that were dropped but may still be asked for
        self._last_call = time.monotonic()
        self._lock = threading.Lock()
        threading.Thread(target=self._watch_idle, daemon=True).start()

    def __call__(self, data: list[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Take new requests in, work for a moment, give each request the next part of its answer."""
        with self._lock:
            try:
                self.preprocess(data, context)
                self.inference()
                return self.postprocess(context)
            finally:
                self._last_call = time.monotonic()

    def preprocess(self, data: list[Mapping[str, Any]], context: Any) -> None:
        """Drop requests whose clients have left; read those that are new."""
        open_ids = set(context.request_ids.values())
        self._answers = {key: answer for key, answer in self._answers.items() if key in open_ids}
        self._lost = {key: answer for key, answer in self._lost.items() if key in open_ids}
        self._opening.retain(open_ids)
        self.engine.retain(self._answers)
        for i, key in context.request_ids.items():
            if key not in self._answers and key not in self._opening and key not in self._lost:
                self._receive(key, data[i], context.get_all_request_header(i))

    def inference(self) -> None:
        """Admit whose selfies are decoded, and tick; for a moment, or until those that must be whole are complete.

        Whose answer is complete gets it at once. On a GPU the next tick is under way by then.
        """
        begin = time.monotonic()
        moment = self.settings.tick_seconds or (0.03 if self.engine.denoiser.device.type == "cpu" else 0.01)
        while len(self.engine) or self._opening or self._encoding():
            if not len(self.engine):
                wait([*self._opening.targets, *self._encoding()], moment, FIRST_COMPLETED)
            self._open()
            if len(self.engine):
                self._tick()
            self._write()
            seconds = time.monotonic() - begin
            whole = [key for key, answer in self._answers.items() if answer.is_whole and not answer.done]
            unopened = [key for key, each in self._opening.items() if each.answer.is_whole]
            if seconds >= self.settings.grpc_seconds:
                self._fail(whole, _OUT_OF_TIME)
                for key in unopened:
                    self._give_up(key, _OUT_OF_TIME)
            elif whole or unopened:
                continue
            if seconds >= moment or any(answer.done for answer in self._answers.values()):
                break

    def postprocess(self, context: Any) -> list[bytes]:
        """Give each request its bytes, its status, and whether that was all."""
        now = time.monotonic()
        results: list[bytes] = []
        criteria: list[Callable[[bytes], bool | None]] = []
        for i, key in list(context.request_ids.items()):
            opening = self._opening.get(key)
            answer = opening.answer if opening else self._lost.pop(key) if key in self._lost else self._answers[key]
            criteria.append(_criterion(end := answer.criterion))
            results.append(answer.wait(now) if opening else answer.collect(now))
            if opening and not results[-1]:
                del context.request_ids[i]
                continue
            # Headers hold constants and numbers only: other text could split the response or kill the worker.
            context.set_response_status(answer.rendering.status, "", i)
            context.set_response_content_type(i, answer.rendering.content_type)
            if answer.rendering.retry_after is not None:
                context.set_response_header(i, "Retry-After", str(answer.rendering.retry_after))
            if answer.is_whole:
                context.set_response_header(i, "ts_stream_next", "false")  # without it gRPC kills the worker
            if end or (end is None and not answer.may_come_again):
                self._answers.pop(key, None)
        context.stopping_criteria = criteria
        self._tell(now)
        return results

    def _receive(self, key: str, fields: Mapping[str, Any], headers: Mapping[str, Any]) -> None:
        """Read a new request; whatever is wrong with it becomes its answer."""
        is_whole = over_grpc(headers)
        about = About(request_id(headers, key), *self._identity)
        if asks_to_describe(headers):
            answer = Answer(Rendering(_DOCUMENT), about, is_whole=True)
            answer.describe(self._description())
            self._answers[key] = answer
            return
        # What a worker had begun when it was taken away comes to the next one without its data, as an empty form does.
        answer = Answer(Rendering(_DOCUMENT), about, is_whole=is_whole, may_come_again=not fields)
        try:
            arrival = read(fields, headers)
            answer = Answer(arrival.rendering, about, is_whole=is_whole, progress=arrival.progress)
            request = arrival.request
            if not request.detect_only:
                self.engine.check_room(len(self._opening))  # before work is done for a picture
            if request.image is None:
                self._admit(key, arrival, answer, None, time.monotonic())
                return
            self._opening.begin(key, arrival, answer)
        except Exception as problem:
            self._refuse(key, answer, explain(problem))

    def _description(self) -> dict[str, Any]:
        """What the management API's `customized=true` tells: what this version is, and how it runs here."""
        told = {"name", "version", "domain", "image_size", "channels", "prediction_type", "provenance", "figures"}
        defaults = self.pipeline.bundle.manifest.defaults.model_dump(mode="json", exclude_none=True)
        return self.pipeline.bundle.manifest.model_dump(mode="json", include=told) | {
            "defaults": defaults,
            "modes": list(Mode),
            "samplers": list(Sampler),
            "device": str(self.engine.denoiser.device),
            "max_rows": self.engine.max_rows,
            "requests": len(self._answers) + len(self._opening),
        }

    def _open(self) -> None:
        """Admit requests whose selfies are decoded."""
        for key, (each, judgement) in self._opening.opened(self.engine.max_rows).items():
            try:
                if isinstance(judgement, Exception):
                    raise judgement
                self._admit(key, each.arrival, each.answer, each.target.result(), each.begin, judgement)
            except Exception as problem:
                self._refuse(key, each.answer, explain(problem))

    def _give_up(self, key: str, error: Error) -> None:
        """Refuse a request whose selfie is not decoded yet."""
        self._refuse(key, self._opening.give_up(key).answer, error)

    def _refuse(self, key: str, answer: Answer, error: Error) -> None:
        self._meters.count("ddpm_rejected_total", 1, error.code)
        answer.fail(error)
        self._answers[key] = answer

    def _admit(
        self,
        key: str,
        arrival: Arrival,
        answer: Answer,
        aim: Target | None,
        begin: float,
        judgement: Judgement = UNJUDGED,
    ) -> None:
        """Have the engine make what is asked for; an answer that knows all already is given."""
        request, rendering, about = arrival.request, arrival.rendering, answer.about
        if aim is not None:
            target = describe_target(aim, with_picture=request.return_target)
            found = (Notice(code=code, message=message) for code, message in aim.warnings)
            about = replace(about, target=target, warnings=(*request.warnings, *found))
        if request.detect_only:
            answer.about = about
            answer.tell_faces(time.monotonic() - begin)
            self._answers[key] = answer
            return
        plan = make_plan(
            self.pipeline.bundle,
            None if aim is None else aim.pixels,
            num_images=request.best_of,
            mode=str(request.mode),
            resemblance=request.resemblance,
            sampler=request.sampler,
            num_inference_steps=request.num_inference_steps,
            eta=request.eta,
            guidance_loss_scale=request.guidance_loss_scale,
            guide=request.guide,
            seed=request.seed,
            judgement=judgement,
        )
        self.engine.admit(
            key,
            plan,
            num_images=request.num_images,
            preview_every=request.preview_every if rendering.streams else 0,
            max_work=self.settings.max_work_grpc if answer.is_whole else None,
            caller=arrival.caller,
        )
        used = request.parameters() | plan.parameters | {"num_images": request.num_images}
        if aim is not None:
            used["face"] = aim.face
        parameters = {name: value for name, value in used.items() if value is not None}
        notices = [Notice(code=code, message=message) for code, message in plan.warnings]
        warnings = (*about.warnings, *notices)
        about = replace(about, parameters=parameters, warnings=warnings, rows=len(plan.seeds), calls=plan.calls)
        if request.preview_every and not rendering.streams:
            notice = Notice(code="no_effect", message="preview_every: no effect, the answer is not a stream.")
            about = replace(about, warnings=(*about.warnings, notice))
        answer.about = about
        self._answers[key] = answer

    def _tick(self) -> None:
        begin = time.monotonic()
        try:
            happened = self.engine.tick()
        except Exception as problem:
            self._fail([key for key in self._answers if key in self.engine], explain(problem))
            return
        rows = sum(self._answers[key].about.rows for key, event in happened if isinstance(event, events.Progress))
        if rows:
            self._meters.count("ddpm_ticks_total", 1)
            self._meters.count("ddpm_tick_seconds_total", time.monotonic() - begin)
            self._meters.count("ddpm_row_steps_total", rows)
            calls = math.ceil(rows / self.engine.max_rows)
            self._meters.gauge("ddpm_batch_fill", rows / (calls * self.engine.max_rows))
        for key, event in happened:
            self._take(key, event)

    def _take(self, key: str, event: events.Event) -> None:
        answer = self._answers[key]
        answer.take(event)
        match event:
            case events.Started():
                self._meters.observe("ddpm_queue_wait_seconds", event.queue_seconds)
            case events.Image():
                self._meters.count("ddpm_images_total", 1, answer.about.parameters["mode"])
            case events.Failed():
                self._meters.count("ddpm_failed_total", 1, event.code)

    def _write(self) -> None:
        """Have answers written as far as they are known."""
        for key, answer in self._answers.items():
            try:
                answer.write(self.encoders)
            except Exception as problem:
                self._fail([key], explain(problem))

    def _encoding(self) -> list[Future[Any]]:
        return [answer.under_way for answer in self._answers.values() if answer.under_way is not None]

    def _fail(self, keys: Collection[str], error: Error) -> None:
        """End open requests with an error."""
        for key in keys:
            self._meters.count("ddpm_failed_total", 1, error.code)
            self._answers[key].fail(error)
        self.engine.retain(self._answers.keys() - set(keys))

    def _tell(self, now: float) -> None:
        under_way = [answer for answer in self._answers.values() if not answer.done]
        running = sum(answer.started for answer in under_way)
        self._meters.gauge("ddpm_requests_running", running)
        self._meters.gauge("ddpm_requests_queued", len(under_way) - running + len(self._opening))
        self._meters.gauge("ddpm_backlog_seconds", self.engine.backlog_seconds)
        self._meters.gauge("ddpm_max_rows", self.engine.max_rows)
        self._meters.gauge("ddpm_memory_bytes", host_memory(), "host")
        self._meters.gauge("ddpm_memory_bytes", device_memory(self.engine.denoiser.device), "device")
        self._meters.flush(now, at_once=not under_way and not self._opening)

    def _watch_idle(self) -> None:
        """Forget requests that no call has asked for: when all clients leave at once, no call comes to tell."""
        while True:
            time.sleep(self.settings.idle_seconds / 4)
            with self._lock:
                now = time.monotonic()
                if (self._answers or self._opening) and now - self._last_call > self.settings.idle_seconds:
                    self._forget(now)

    def _forget(self, now: float) -> None:
        self.engine.retain(())
        for key in self._opening:
            self._give_up(key, _FORGOTTEN)
        for answer in self._answers.values():
            answer.fail(_FORGOTTEN)
        self._lost |= self._answers
        self._answers = {}
        self._tell(now)


_handler: Handler | None = None


def handle(data: list[Mapping[str, Any]] | None, context: Any) -> list[bytes] | None:
    """What TorchServe calls: without data to load the model, then with every open request."""
    global _handler
    if _handler is None:
        _handler = Handler(context)
    return None if data is None else _handler(data, context)


def _criterion(end: bool | None) -> Callable[[bytes], bool | None]:
    return lambda _: end
