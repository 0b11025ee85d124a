"""Who asks: the key is recognised, its right and its quota are checked, before all else."""

from __future__ import annotations

from fastapi import Request

from apiban.feed.server.api.shapes import rate_limited, unauthorized
from apiban.feed.server.keys import READ, KeyRecord, Keys
from apiban.feed.server.listings import View
from apiban.feed.server.metrics import Metrics
from apiban.feed.server.quota import Quota

__all__ = ["Access", "bearer", "view_of"]


class Access:
    """Lets requests in, or raises the answer that refuses them."""

    def __init__(self, keys: Keys, quota: Quota, metrics: Metrics) -> None:
        self._keys = keys
        self._quota = quota
        self._metrics = metrics

    def admit(self, request: Request, key: str, *, may: str = READ) -> KeyRecord:
        """Give the key's record, once its right and its quota allow the request.

        Raises:
            Answer: 403 or 429.
            StoreError

        """
        record = self._keys.recognise(key) if key else None
        if record is None or record.may != may:
            self._metrics.unauthorized()
            raise unauthorized()
        request.state.key_name = record.name
        wait = self._quota.take(record)
        if wait > 0:
            self._metrics.rate_limited()
            raise rate_limited(wait)
        return record


def bearer(request: Request) -> str:
    """Give the bearer key of a request, or an empty text."""
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if kind.lower() == "bearer" else ""


def view_of(record: KeyRecord, dataset: str = "sip") -> View:
    """Give what a key sees of a data set."""
    return View(dataset, blocks=record.blocks, ipv6=record.ipv6)
