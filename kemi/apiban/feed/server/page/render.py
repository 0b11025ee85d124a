"""From records to HTML, and the headers that keep what came in packets from doing anything."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from apiban.feed.server.page import words

__all__ = ["document", "respond"]

_HERE: Final = Path(__file__).parent
_STYLE: Final = _HERE.joinpath("style.css").read_text(encoding="utf-8")
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

# The one stylesheet, and no script, whatever ends up in the page.
_HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def _finalize(value: Any) -> Any:
    """Make every text that a template shows visible; what is markup already was made so."""
    if value is None:
        return ""
    return words.visible(value) if type(value) is str else value


_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=_finalize,
)
_TEMPLATES.filters |= {"amount": words.amount, "time": words.time, "ago": words.ago}
_TEMPLATES.globals["style"] = Markup(_STYLE)  # noqa: S704 - our own file


def document(template: str, **context: object) -> bytes:
    """Fill in a template."""
    return _TEMPLATES.get_template(template).render(context).encode("utf-8", "replace")


def respond(body: bytes, cache: str, status: int = 200, **headers: str) -> HTMLResponse:
    """Send a document; ``cache`` is its Cache-Control."""
    return HTMLResponse(
        body, status_code=status, headers={**_HEADERS, "Cache-Control": cache, **headers}
    )
