"""The options by which commands load a model."""

from __future__ import annotations

from typing import Annotated

import typer

Device = Annotated[str | None, typer.Option(help="cpu or cuda. (default: the best there is)")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16; auto is the fastest, by trying.")]
RunCode = Annotated[
    bool,
    typer.Option(
        "--run-code",
        help="Run the code that the model brings, if it brings some. It may do all that you may: read it first.",
    ),
]
