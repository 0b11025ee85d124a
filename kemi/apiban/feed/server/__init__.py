"""A feed of our own: an APIBAN-compatible service, v1 and v2, over a list file.

``python3 -m apiban.feed.server --help`` tells how to start it.
"""

from apiban.feed.server.app import make_app
from apiban.feed.server.catalog import Catalog
from apiban.feed.server.quota import Quota

__all__ = ["Catalog", "Quota", "make_app"]
