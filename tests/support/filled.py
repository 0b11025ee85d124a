"""A feed's database with something of everything in it, and the application that shows it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apiban.address import parse_network
from apiban.feed.server import numbers
from apiban.feed.server.claims import FILE, MANUAL, Claims, Wanted
from apiban.feed.server.database import Database
from apiban.feed.server.evidence import Evidence
from apiban.feed.server.keys import REPORT, Keys
from apiban.feed.server.metrics import Metrics, metrics_router
from apiban.feed.server.never import NeverList
from apiban.feed.server.notes import write_note
from apiban.feed.server.operator import Operator
from apiban.feed.server.page import page_router
from apiban.feed.server.report import Report, Sighting, Unproven
from apiban.feed.server.reports import Reports
from apiban.feed.server.settings import CurationSettings
from apiban.settings.secret import Secret
from fastapi import FastAPI

from tests.contract.asgi import Raw, call
from tests.support.clock import ManualClock

PASSWORD = "correct horse battery"
CLIENT_KEY = "a-client-key-of-its-own"
SOURCE = "198.51.100.7"
# It ends the cell, the attribute and the comment; it turns text around, and holds an escape.
HOSTILE = '</td>-->"><script>document.title="owned"</script>\x1b[31m\u202egnp.exe'


def sighting(number: int, at: float, source: str = SOURCE, **more: Any) -> Sighting:
    """Give a proven sighting of a scanner's REGISTER."""
    values: dict[str, Any] = {"transport": "udp", "method": "REGISTER", "proof": "nonce", **more}
    return Sighting(number, at, parse_network(source), **values)


class FilledFeed:
    """One feed; its clock stands still unless a test turns it."""

    def __init__(self, url: str, *, trust_loopback: bool = False, fill: bool = True) -> None:
        self.clock = ManualClock()
        self.peer: int | None = 0  # whose connections from this machine are
        now = self.clock.now
        self.database = Database(Secret(url))
        settings = CurationSettings()
        never = NeverList(None, lambda *_, **__: None)
        self.claims = Claims(settings, never, now)
        self.keys = Keys(self.database, now)
        self.reports = Reports(self.database, self.claims, Evidence(settings, now), settings, now)
        self.operator = Operator(
            self.database, now, trust_loopback=trust_loopback, peer=lambda _: self.peer
        )
        self.metrics = Metrics(self.database, now)
        self.app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        self.app.include_router(page_router(self.database, now, self.operator))
        self.app.include_router(metrics_router(self.metrics, self.operator))
        if fill:
            self.fill()

    def fill(self) -> None:
        """Report, claim and count: 3 addresses are active, and 1,240 were at noon."""
        now = self.clock.now()
        self.keys.create("pot-north", may=REPORT)
        self.keys.create("client-west", requests=60, seconds=60.0, given=Secret(CLIENT_KEY))
        hostile = sighting(
            1, now, count=41, tool="sipvicious", user_agent=HOSTILE, users=("100", HOSTILE)
        )
        invite = sighting(2, now, "198.51.100.8", method="INVITE", transport="tcp", tool="sipcli")
        forged = Unproven(parse_network("203.0.113.9"), "OPTIONS", now, now, 5, None, HOSTILE)
        self.reports.take("pot-north", Report("q1", [hostile, invite], [forged]))
        with self.database.write() as connection:
            wanted = [Wanted(parse_network("192.0.9.0/24"), now, now + 86400, "a farm", "http")]
            self.claims.make(connection, MANUAL, wanted)
            wanted = [Wanted(parse_network(SOURCE), now, now + 86400)]
            self.claims.make(connection, FILE + "secret-partner", wanted)
            upstream = {"state": "synced", "entries": 900, "complete_at": now - 120, "at": now}
            write_note(connection, "mirror", upstream, now=now)
            for hours in range(48):
                values = {("active", "sip"): 1240 - hours, ("active", "http"): 7}
                numbers.put(connection, now - 3600 * hours, values)

    def get(
        self,
        path: str,
        *,
        password: str | None = None,
        user: str = "operator",
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Raw:
        """Ask for a page, with a password or without."""
        sent = dict(headers or {})
        if password is not None:
            sent["Authorization"] = basic(user, password)
        return call(self.app, "GET", path, sent, **more)

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()


def sqlite_in(folder: Path) -> str:
    """Give the URL of an SQLite database in a folder."""
    return f"sqlite:///{folder / 'feed.db'}"


def basic(user: str, password: str) -> str:
    """Give the header's text for HTTP Basic."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
