"""The HTTP API: v1 and v2 as every APIBAN client speaks them, /ipset, reports, health."""

from apiban.feed.server.api.app import make_app

__all__ = ["make_app"]
