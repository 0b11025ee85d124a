"""Whether the service lives, and whether it can serve."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import text

from apiban.errors import StoreError
from apiban.feed.server.database import Database

__all__ = ["health_router"]


class Health(BaseModel):
    """How it is: "ok", or what is wrong."""

    status: str


def health_router(database: Database) -> APIRouter:
    """Make /health (the process answers) and /ready (the database does too)."""
    router = APIRouter(tags=["health"])

    @router.get("/health", response_model=Health)
    async def health() -> Any:
        """Tell that the process answers."""
        return JSONResponse({"status": "ok"})

    @router.get("/ready", response_model=Health, responses={503: {"model": Health}})
    def ready() -> Any:
        """Tell whether requests can be served."""
        try:
            with database.read() as connection:
                connection.execute(text("SELECT 1"))
        except StoreError:
            return JSONResponse({"status": "the database is not there"}, status_code=503)
        return JSONResponse({"status": "ok"})

    return router
