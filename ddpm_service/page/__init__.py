"""The web page: static files over the public API only, and the policy they are to be served with.

`index.html` belongs at `/`; it names all other files relative to that, as `page/<file>`.
"""

from __future__ import annotations

from pathlib import Path

FILES = Path(__file__).parent / "static"
"""The folder of the page's files."""

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The `Content-Security-Policy` header of the page: nothing is fetched from, or sent to, another host."""
