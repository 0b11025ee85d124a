"""The application: routes, and what becomes of everything that goes wrong in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from apiban import __version__
from apiban.errors import StoreError
from apiban.feed.server.api.access_log import AccessLog
from apiban.feed.server.api.shapes import Answer
from apiban.feed.server.metrics import Metrics
from apiban.log import Log, where

__all__ = ["make_app"]


def make_app(routers: Iterable[APIRouter], *, log: Log, metrics: Metrics) -> FastAPI:
    """Build the application of these routes."""
    app = FastAPI(
        title="APIBAN feed",
        version=__version__,
        description="Addresses that honeypots caught probing SIP servers.",
        # Their pages load scripts from elsewhere; the document itself is at /openapi.json.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the redirect's Location would hold the key
    )
    for router in routers:
        app.include_router(router)

    @app.exception_handler(Answer)
    async def answer(_request: Request, error: Answer) -> Response:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, _error: Exception) -> Response:
        return JSONResponse({}, status_code=400)

    @app.exception_handler(HTTPException)
    async def unknown(_request: Request, error: HTTPException) -> Response:
        return JSONResponse({}, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(StoreError)
    async def no_store(_request: Request, error: StoreError) -> Response:
        metrics.store_error()
        log("feed-store-failed", reason=error, effect="answered 503")
        return JSONResponse({}, status_code=503)

    @app.exception_handler(Exception)
    async def fault(_request: Request, error: Exception) -> Response:
        # The text of an unforeseen error may hold the path, and so a key.
        log("fault", what=type(error).__name__, at=where(error), effect="answered 500")
        return JSONResponse({}, status_code=500)

    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    app.add_middleware(AccessLog, log=log, metrics=metrics)
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """Give the published document, without the 422 that FastAPI adds: here that is 400."""
    if not app.openapi_schema:
        schema = FastAPI.openapi(app)
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
    return app.openapi_schema or {}
