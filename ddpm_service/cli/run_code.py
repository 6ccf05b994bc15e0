"""The option by which a model's own code is run."""

from __future__ import annotations

from typing import Annotated

import typer

RunCode = Annotated[
    bool,
    typer.Option(
        "--run-code",
        help="Run the code that the model brings, if it brings some. It may do all that you may: read it first.",
    ),
]
