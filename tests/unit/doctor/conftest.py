"""Servers of a test's own, as the tests of the feed's client have them."""

from tests.unit.feed.conftest import _no_proxies, certificate, serve, tls

__all__ = ["_no_proxies", "certificate", "serve", "tls"]
