"""The list: v1 with the key in the path, v2 with a bearer key, and /ipset as plain text.

A key is checked before a body is read: a stranger learns nothing but that it is one.
"""

# Annotations are evaluated here, and not put off: they name dependencies made in a function.

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, ValidationError

from apiban.address import parse_address
from apiban.errors import AddressError
from apiban.feed.answer import FROM_START
from apiban.feed.server.api.access import Access, bearer, view_of
from apiban.feed.server.api.body import body_of, document_body
from apiban.feed.server.api.shapes import (
    Batch,
    documented,
    end_of_list,
    malformed,
    not_listed,
)
from apiban.feed.server.keys import KeyRecord
from apiban.feed.server.listings import Listings, View

__all__ = ["ipset_router", "v1_router", "v2_router"]

_LARGEST_BODY: Final = 4096
_LONGEST_ID: Final = 40
_LARGEST_ID: Final = 2**63 - 1
_Body = Annotated[bytes, Depends(body_of(_LARGEST_BODY))]
_ANSWERS: Final = documented(400, 403, 404, 429)
_BODY_ANSWERS: Final = documented(400, 403, 408, 413, 429)
# Says in the published document how the key travels; the handlers read it by themselves.
_BEARER: Final = [Depends(HTTPBearer(auto_error=False))]


_Model = TypeVar("_Model", bound=BaseModel)


class _Question(BaseModel):
    """What every v2 request names."""

    model_config = ConfigDict(strict=True)

    set: Literal["sip", "http", "all"] = "sip"


class GetBody(_Question):
    """Which page: the one after ``id``; "100" is the start."""

    id: str | int = FROM_START


class CheckBody(_Question):
    """Which address."""

    ipaddress: str


class _Pages:
    """Answers from the list, for a view that a key has."""

    def __init__(self, listings: Listings) -> None:
        self._listings = listings

    def page(self, text: str, view: View) -> JSONResponse:
        """Answer with the page after an ID."""
        if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_ID):
            raise malformed()
        found = self._listings.after(min(int(text), _LARGEST_ID), view)
        if not found:
            raise end_of_list()
        addresses = [one.address for one in found]
        return JSONResponse({"ipaddress": addresses, "ID": str(found[-1].number)})

    def check(self, text: str, view: View) -> JSONResponse:
        """Answer whether an address is active."""
        try:
            address = parse_address(text)
        except AddressError:
            raise malformed() from None
        found = self._listings.find(address, view)
        if found is None:
            raise not_listed()
        return JSONResponse({"ipaddress": [str(address)], "ID": str(found.number)})


def v1_router(listings: Listings, access: Access) -> APIRouter:
    """Make the routes with the key in the path."""
    router = APIRouter(prefix="/api/{key}", tags=["v1"])
    pages = _Pages(listings)

    def known(request: Request, key: str) -> KeyRecord:
        return access.admit(request, key)

    reader = Annotated[KeyRecord, Depends(known)]

    @router.get("/banned", response_model=Batch, responses=_ANSWERS)
    def first(record: reader) -> Any:
        """Give the first page."""
        return pages.page(FROM_START, view_of(record))

    @router.get("/banned/{ID}", response_model=Batch, responses=_ANSWERS)
    def after(record: reader, ID: str) -> Any:  # noqa: N803 - the API's name
        """Give the page after an ID."""
        return pages.page(ID, view_of(record))

    @router.get("/check/{ip}", response_model=Batch, responses=_ANSWERS)
    def check(record: reader, ip: str) -> Any:
        """Tell whether an address is active."""
        return pages.check(ip, view_of(record))

    return router


def v2_router(listings: Listings, access: Access) -> APIRouter:
    """Make the routes with a bearer key."""
    router = APIRouter(prefix="/api", tags=["v2"], dependencies=_BEARER)
    pages = _Pages(listings)

    def known(request: Request) -> KeyRecord:
        return access.admit(request, bearer(request))

    reader = Annotated[KeyRecord, Depends(known)]

    @router.post(
        "/get",
        response_model=Batch,
        responses=_BODY_ANSWERS,
        openapi_extra=document_body(GetBody),
    )
    def get(record: reader, raw: _Body) -> Any:
        """Give the page after an ID."""
        body = _read(GetBody, raw)
        return pages.page(str(body.id), view_of(record, body.set))

    @router.post(
        "/check",
        response_model=Batch,
        responses=_BODY_ANSWERS,
        openapi_extra=document_body(CheckBody),
    )
    def check(record: reader, raw: _Body) -> Any:
        """Tell whether an address is active."""
        body = _read(CheckBody, raw)
        return pages.check(body.ipaddress, view_of(record, body.set))

    return router


def ipset_router(listings: Listings, access: Access) -> APIRouter:
    """Make /ipset: the whole list as plain text, for firewalls that read one."""
    router = APIRouter()

    def lines(view: View) -> Iterator[str]:
        # A piece of the answer is a turn of the thread pool: a line each would be too small.
        for piece in listings.pieces(view):
            yield "\n".join(piece) + "\n"

    @router.get(
        "/ipset/{key}/list",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **documented(403, 404, 429),
        },
        tags=["ipset"],
    )
    def whole(request: Request, key: str) -> Any:
        """Give every active address, one a line."""
        view = view_of(access.admit(request, key))
        return StreamingResponse(lines(view), media_type="text/plain")

    return router


def _read(model: type[_Model], raw: bytes) -> _Model:
    """Read a body."""
    try:
        return model.model_validate_json(raw or b"{}")
    except ValidationError:
        raise malformed() from None
