"""The status page: figures and charts for everyone, keys and evidence for the operator."""

from apiban.feed.server.page.routes import page_router

__all__ = ["page_router"]
