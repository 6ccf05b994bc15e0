"""TorchServe's inference service on the wire: what a client written for TorchServe sends and reads.

Described here, not generated: no generator has to match protobuf's version. The descriptors live in a pool of their
own, so that TorchServe's generated classes, which have the same names, can be used in the same process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pool, empty_pb2, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from ddpm_api import InvalidRequest

_PACKAGE = "org.pytorch.serve.grpc.inference"
SERVICE = f"{_PACKAGE}.InferenceAPIsService"
_REQUEST, _RESPONSE, _HEALTH = (
    f"{_PACKAGE}.{name}" for name in ("PredictionsRequest", "PredictionResponse", "TorchServeHealthResponse")
)


def _field(name: str, number: int, kind: str, **more: str) -> dict[str, Any]:
    return {"name": name, "number": number, "type": f"TYPE_{kind}", "label": "LABEL_OPTIONAL", **more}


def _method(name: str, asked: str, answered: str, **more: bool) -> dict[str, Any]:
    return {"name": name, "inputType": f".{asked}", "outputType": f".{answered}", **more}


# Names and numbers are TorchServe 0.12's. Its newer fields (sequenceId, status) belong to StreamPredictions2, which
# is about sequences of inputs; there are none here.
_FILE = {
    "name": "inference.proto",
    "package": _PACKAGE,
    "syntax": "proto3",
    "dependency": ["google/protobuf/empty.proto"],
    "messageType": [
        {
            "name": "PredictionsRequest",
            "field": [
                _field("model_name", 1, "STRING"),
                _field("model_version", 2, "STRING"),
                _field("input", 3, "MESSAGE", label="LABEL_REPEATED", typeName=f".{_REQUEST}.InputEntry"),
            ],
            "nestedType": [
                {
                    "name": "InputEntry",
                    "field": [_field("key", 1, "STRING"), _field("value", 2, "BYTES")],
                    "options": {"mapEntry": True},
                }
            ],
        },
        {"name": "PredictionResponse", "field": [_field("prediction", 1, "BYTES")]},
        {"name": "TorchServeHealthResponse", "field": [_field("health", 1, "STRING")]},
    ],
    "service": [
        {
            "name": "InferenceAPIsService",
            "method": [
                _method("Ping", "google.protobuf.Empty", _HEALTH),
                _method("Predictions", _REQUEST, _RESPONSE),
                _method("StreamPredictions", _REQUEST, _RESPONSE, serverStreaming=True),
            ],
        }
    ],
}

POOL = descriptor_pool.DescriptorPool()
"""What reflection tells of: this service, and those beside it."""
for _known in (empty_pb2, health_pb2, reflection_pb2):
    POOL.AddSerializedFile(_known.DESCRIPTOR.serialized_pb)
POOL.Add(ParseDict(_FILE, FileDescriptorProto()))
_PredictionsRequest, _PredictionResponse, _HealthResponse = (
    message_factory.GetMessageClass(POOL.FindMessageTypeByName(name)) for name in (_REQUEST, _RESPONSE, _HEALTH)
)


@dataclass(frozen=True)
class Prediction:
    """A `PredictionsRequest`: a model, a version (None for the default one), and the fields of a request."""

    model: str
    version: str | None
    fields: Mapping[str, bytes]


def read_prediction(message: bytes) -> Prediction:
    """Read a `PredictionsRequest`.

    Raises:
        InvalidRequest: it is none.
    """
    request: Any = _PredictionsRequest()
    try:
        request.ParseFromString(message)
    except DecodeError:
        raise InvalidRequest("malformed_request", "The message is not a PredictionsRequest.") from None
    return Prediction(request.model_name, request.model_version or None, dict(request.input))


def prediction(content: bytes) -> bytes:
    """A `PredictionResponse`."""
    return _PredictionResponse(prediction=content).SerializeToString()


def health(text: str) -> bytes:
    """A `TorchServeHealthResponse`."""
    return _HealthResponse(health=text).SerializeToString()
