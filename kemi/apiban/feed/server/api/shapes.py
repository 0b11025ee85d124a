"""The API's answers, in the shapes of the current public documentation.

Where the documentation's versions differ, see ``apiban.feed.answer``: its client takes them all.
"""

from __future__ import annotations

import math
from typing import Any, Final

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

__all__ = [
    "Answer",
    "Batch",
    "Empty",
    "Refusal",
    "documented",
    "end_of_list",
    "malformed",
    "not_listed",
    "rate_limited",
    "unauthorized",
]


class Batch(BaseModel):
    """Addresses, and the ID to ask on with; "no new bans" and "none" at the end of the list."""

    ipaddress: list[str] = Field(min_length=1, max_length=250)
    ID: str


class Refusal(BaseModel):
    """The key is not known, or has asked too often."""

    ipaddress: str
    ID: str = "unauthorized"


class Empty(BaseModel):
    """Nothing is said of what cannot be understood."""

    model_config = {"extra": "forbid"}


class Answer(Exception):
    """Ends the handling of a request with this answer."""

    def __init__(
        self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        self.status = status
        self.body = body
        self.headers = headers
        super().__init__(f"status {status}")

    def response(self) -> JSONResponse:
        """Give it as a response."""
        return JSONResponse(self.body, status_code=self.status, headers=self.headers)


def unauthorized() -> Answer:
    """Say that the key is unknown, revoked, or may not do this."""
    return Answer(403, {"ipaddress": "none", "ID": "unauthorized"})


def rate_limited(wait: float) -> Answer:
    """Say that the key has used its quota; ``wait`` is in seconds."""
    body = {"ipaddress": "rate limit exceeded", "ID": "unauthorized"}
    return Answer(429, body, {"Retry-After": str(math.ceil(wait))})


def end_of_list() -> Answer:
    """Say that there is nothing after the ID."""
    return Answer(400, {"ipaddress": ["no new bans"], "ID": "none"})


def not_listed() -> Answer:
    """Say that the address is not active."""
    return Answer(400, {"ipaddress": ["not blocked"], "ID": "none"})


def malformed(status: int = 400) -> Answer:
    """Say nothing of a request that cannot be understood."""
    return Answer(status, {})


_RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds until a request may come.",
        "schema": {"type": "integer"},
    }
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Give what the published document says of answers other than 200."""
    known: dict[int, dict[str, Any]] = {
        400: {"model": Batch | Empty, "description": "End of the list, not listed, or malformed"},
        403: {"model": Refusal, "description": "The key is not known, or may not do this"},
        404: {"model": Empty, "description": "Not there"},
        408: {"model": Empty, "description": "The body did not come in time"},
        413: {"model": Empty, "description": "The body is too large"},
        429: {"model": Refusal, "description": "Too many requests", "headers": _RETRY_AFTER},
        503: {"model": Empty, "description": "The database is not there now"},
    }
    return {status: known[status] for status in (*statuses, 503)}
