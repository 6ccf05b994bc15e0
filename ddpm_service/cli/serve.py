"""`ddpm serve`: everything that answers requests, under one process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ddpm_service.cli.choices import YUNET, between
from ddpm_service.cli.failure import told_in_a_line


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on; off loopback it wants tokens.")] = "127.0.0.1",
    port: Annotated[int, between(0, 65535, help="the page and the API, over HTTP.", envvar="PORT")] = 8000,
    grpc_port: Annotated[int, between(0, 65535, help="for gRPC.")] = 8001,
    metrics_port: Annotated[int, between(0, 65535, help="for Prometheus.")] = 8002,
    metrics_host: Annotated[
        str, typer.Option(help="The address of the metrics, which want no token: one that only operators reach.")
    ] = "127.0.0.1",
    models: Annotated[Path, typer.Option(help="What to serve; applied again when it changes.")] = Path("models.yaml"),
    tokens: Annotated[
        Path | None, typer.Option(envvar="DDPM_TOKENS", help="A file of API tokens, one a line.", dir_okay=False)
    ] = None,
    checksums: Annotated[
        Path | None,
        typer.Option(
            envvar="DDPM_CHECKSUMS",
            help="Load only archives that this file names, with these checksums (sha256sum writes it).",
            dir_okay=False,
        ),
    ] = None,
    face_detector: Annotated[
        Path | None,
        typer.Option(
            envvar="DDPM_FACE_DETECTOR",
            help=f"A YuNet ONNX file to find faces with. (default: models/{YUNET} where there is one)",
            exists=True,
            dir_okay=False,
            resolve_path=True,
        ),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let everybody in, also off loopback.")] = False,
    config: Annotated[Path, typer.Option(help="TorchServe's settings.")] = Path("config.properties"),
) -> None:
    """Start TorchServe with the models of models.yaml and the front door, until Ctrl-C or SIGTERM.

    Limits are set by environment variables: DDPM_MAX_BYTES, DDPM_RATE_PER_MINUTE, DDPM_CORS_ORIGINS and others.

    Example: ddpm serve --port 8000
    """
    from ddpm_service.gateway import lifecycle, logs
    from ddpm_service.gateway.settings import Settings

    with told_in_a_line("ddpm serve"):
        logs.configure()
        detector = face_detector or max((config.resolve().parent / "models").glob(YUNET), default=None)
        if detector is not None:
            os.environ["DDPM_FACE_DETECTOR"] = str(detector)  # read by the workers
        options = lifecycle.Options(
            host, port, grpc_port, metrics_host, metrics_port, models, config, tokens, insecure, checksums
        )
        lifecycle.serve(options, Settings.read())
