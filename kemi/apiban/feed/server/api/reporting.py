"""Where honeypots report: POST /api/report, with a key that has the right to.

A sighting that cannot be read is refused by its number, and the others are taken: one bad record
must not keep a honeypot's queue from moving on.
"""

# Annotations are evaluated here, and not put off: they name dependencies made in a function.

import json
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apiban.address import Network, parse_address
from apiban.errors import AddressError
from apiban.feed.server.api.access import Access, bearer
from apiban.feed.server.api.body import body_of, document_body
from apiban.feed.server.api.shapes import documented, malformed
from apiban.feed.server.keys import REPORT, KeyRecord
from apiban.feed.server.metrics import Metrics
from apiban.feed.server.report import Receipt, Report, Sighting, Unproven
from apiban.feed.server.reports import Reports
from apiban.log import clean

__all__ = ["report_router"]

_LARGEST_BODY: Final = 1 << 20
_LARGEST_BATCH: Final = 1000
_Body = Annotated[bytes, Depends(body_of(_LARGEST_BODY))]

_Time = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=1_000_000)]
# A SIP token (RFC 3261, 25.1), in capitals.
_Method = Annotated[str, Field(pattern=r"^[A-Z0-9.!%*_+`'~-]{1,32}$")]
_Tool = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
_Text = Annotated[str, Field(max_length=1000)]


class SightingBody(BaseModel):
    """A proven source that probed."""

    model_config = ConfigDict(strict=True)

    sequence: int = Field(ge=1, le=2**53)
    at: _Time
    source: str = Field(max_length=64)
    transport: Literal["udp", "tcp", "tls"]
    method: _Method
    proof: Literal["nonce", "connection"]
    count: _Count = 1
    tool: _Tool | None = None
    user_agent: _Text | None = None
    dialled: _Text | None = None
    users: list[_Text] = Field(default=[], max_length=100)


class UnprovenBody(BaseModel):
    """A source that proved nothing."""

    model_config = ConfigDict(strict=True)

    source: str = Field(max_length=64)
    method: _Method
    first: _Time
    last: _Time
    count: _Count = 1
    tool: _Tool | None = None
    user_agent: _Text | None = None


class ReportBody(BaseModel):
    """A batch; its sightings are read one by one, so that one bad one is refused alone."""

    model_config = ConfigDict(strict=True)

    queue: str = Field(pattern=r"^[0-9a-f]{32}$")
    sightings: list[dict[str, Any]] = Field(default=[], max_length=_LARGEST_BATCH)
    unproven: list[dict[str, Any]] = Field(default=[], max_length=_LARGEST_BATCH)
    unproven_not_kept: int = Field(default=0, ge=0, le=2**40)


class Refused(BaseModel):
    """A sighting that was refused for good."""

    sequence: int | None
    reason: str


class ReceiptBody(BaseModel):
    """All of the batch is settled."""

    accepted: int
    repeated: int
    refused: list[Refused]


def report_router(reports: Reports, access: Access, metrics: Metrics) -> APIRouter:
    """Make the route for honeypots."""
    router = APIRouter(prefix="/api")

    def known(request: Request) -> KeyRecord:
        return access.admit(request, bearer(request), may=REPORT)

    reporter = Annotated[KeyRecord, Depends(known)]

    @router.post(
        "/report",
        response_model=ReceiptBody,
        responses=documented(400, 403, 408, 413, 429),
        openapi_extra=document_body(ReportBody),
        dependencies=[Depends(HTTPBearer(auto_error=False))],
        tags=["report"],
    )
    def report(record: reporter, raw: _Body) -> Any:
        """Take a batch of sightings."""
        try:
            # Python's reader takes half a surrogate, which then is one sighting's fault alone.
            body = ReportBody.model_validate(json.loads(raw))
        except (ValueError, RecursionError):
            raise malformed() from None
        receipt = reports.take(record.name, _read(body))
        metrics.reports(receipt.accepted, receipt.repeated, len(receipt.refused))
        return JSONResponse(_shown(receipt))

    return router


def _shown(receipt: Receipt) -> dict[str, Any]:
    refused = [{"sequence": number, "reason": reason} for number, reason in receipt.refused]
    return {"accepted": receipt.accepted, "repeated": receipt.repeated, "refused": refused}


def _read(body: ReportBody) -> Report:
    sightings: list[Sighting] = []
    refused: list[tuple[int | None, str]] = []
    for one in body.sightings:
        number = one.get("sequence")
        number = number if isinstance(number, int) else None
        try:
            sightings.append(_sighting(SightingBody.model_validate(one)))
        except (ValidationError, AddressError) as error:
            refused.append((number, _reason(error)))
    unproven: list[Unproven] = []
    for one in body.unproven:
        try:
            unproven.append(_unproven(UnprovenBody.model_validate(one)))
        except (ValidationError, AddressError) as error:
            refused.append((None, _reason(error)))
    return Report(body.queue, sightings, unproven, body.unproven_not_kept, refused)


def _sighting(body: SightingBody) -> Sighting:
    return Sighting(
        sequence=body.sequence,
        at=body.at,
        source=_address(body.source),
        transport=body.transport,
        method=body.method,
        proof=body.proof,
        count=body.count,
        tool=body.tool,
        user_agent=_text(body.user_agent, 200),
        dialled=_text(body.dialled, 64),
        users=tuple(filter(None, (_text(user, 64) for user in body.users))),
    )


def _unproven(body: UnprovenBody) -> Unproven:
    return Unproven(
        source=_address(body.source),
        method=body.method,
        first=body.first,
        last=body.last,
        count=body.count,
        tool=body.tool,
        user_agent=_text(body.user_agent, 200),
    )


def _address(text: str) -> Network:
    return parse_address(text)


def _text(text: str | None, longest: int) -> str | None:
    """Keep what a packet said as one printable line: a database takes no NUL, a page no escape."""
    return clean(text, longest - 2).strip('"') if text else None


def _reason(error: Exception) -> str:
    """Say which field is wrong, and nothing of its value."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return "source: not an IP address"
