"""``/key``: where people ask for a key by e-mail, when the operator has switched that on.

The link in the mail shows a button, and the button makes the key: programs that look at the links
of every mail press none.
"""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends
from starlette.background import BackgroundTask
from starlette.responses import Response

from apiban.errors import StoreError
from apiban.feed.server.api.body import body_of
from apiban.feed.server.enrolment import Enrolment
from apiban.feed.server.page.render import document, respond

__all__ = ["enrolment_router"]

_NO_STORE: Final = "no-store"
_Body = Annotated[bytes, Depends(body_of(4096))]


def enrolment_router(enrolment: Enrolment) -> APIRouter:
    """Make the routes."""
    pages = _Pages(enrolment)
    router = APIRouter(prefix="/key", include_in_schema=False)
    router.add_api_route("", pages.form, methods=["GET"], response_model=None)
    router.add_api_route("", pages.ask, methods=["POST"], response_model=None)
    router.add_api_route("/confirm", pages.look, methods=["GET"], response_model=None)
    router.add_api_route("/confirm", pages.confirm, methods=["POST"], response_model=None)
    return router


class _Pages:
    def __init__(self, enrolment: Enrolment) -> None:
        self._enrolment = enrolment

    def form(self) -> Response:
        """GET /key: the form."""
        return _page("ask")

    def ask(self, raw: _Body) -> Response:
        """POST /key: send the link; the answer is the same for every address."""
        email = _field(raw, "email").strip()
        if not self._enrolment.is_address(email):
            return _page("ask", status=400, wrong=email)
        response = _page("sent", status=202)
        response.background = BackgroundTask(self._enrolment.ask, email)
        return response

    def look(self, token: str = "") -> Response:
        """GET /key/confirm: the button."""
        try:
            waiting = self._enrolment.is_waiting(token)
        except StoreError:
            return _page("later", status=503)
        return _page("confirm", token=token) if waiting else _page("over", status=404)

    def confirm(self, raw: _Body) -> Response:
        """POST /key/confirm: make the key, and show it this once."""
        try:
            key = self._enrolment.confirm(_field(raw, "token"))
        except StoreError:
            return _page("later", status=503)
        return _page("key", key=key.reveal()) if key else _page("over", status=404)


def _page(step: str, status: int = 200, **context: object) -> Response:
    values = {"wrong": "", "token": "", "key": "", **context}
    return respond(document("key.html", step=step, **values), _NO_STORE, status)


def _field(raw: bytes, name: str) -> str:
    """Give a field of a form."""
    try:
        fields = parse_qs(raw.decode("ascii"), max_num_fields=10)
    except ValueError:
        return ""
    return fields.get(name, [""])[0]
