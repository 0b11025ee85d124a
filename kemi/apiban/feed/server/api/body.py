"""Request bodies, bounded in size and time, read before anything is made of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import Request
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from apiban.feed.server.api.shapes import malformed

__all__ = ["SECONDS", "body_of", "document_body"]

SECONDS: Final = 10.0


def body_of(largest: int) -> Callable[[Request], Awaitable[bytes]]:
    """Make a dependency that gives the body, of at most so many bytes."""

    async def read(request: Request) -> bytes:
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > largest:
            raise malformed(413)
        raw = bytearray()
        try:
            async with asyncio.timeout(SECONDS):
                async for chunk in request.stream():
                    raw += chunk
                    if len(raw) > largest:
                        raise malformed(413)
        except TimeoutError:
            raise malformed(408) from None
        except ClientDisconnect:
            raise malformed() from None
        return bytes(raw)

    return read


def document_body(model: type[BaseModel]) -> dict[str, Any]:
    """Give the published document's part on a body that the handler reads by itself."""
    schema = model.model_json_schema()
    return {"requestBody": {"content": {"application/json": {"schema": schema}}, "required": True}}
