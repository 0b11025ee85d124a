import json
from base64 import b64decode
from hashlib import sha256

import pytest
from apiban.address import parse_network
from apiban.errors import ApibanError
from apiban.feed.server.database import Database
from apiban.feed.server.keys import Keys
from apiban.feed.server.listings import Listings, View
from apiban.feed.server.report import Report, Sighting
from apiban.feed.server.service import Service
from apiban.feed.server.transfer import export_store, import_list, import_store
from apiban.settings import Secret

from tests.support.clock import ManualClock
from tests.support.postgres import Postgres

ALL = View("all", blocks=True, ipv6=True)


def listed(service: Service) -> list[str]:
    """Give what is active."""
    return list(service.listings.whole(ALL))


def load(service: Service, *addresses: str, name: str = "a", replace: bool = False) -> int:
    """Import a list; give how many listings ended."""
    networks = [parse_network(one) for one in addresses]
    _, ended = import_list(
        service.database,
        service.claims,
        networks,
        name=name,
        now=service.now,
        lasts=3600,
        replace=replace,
    )
    return ended


def test_list_is_replaced(service: Service) -> None:
    """What it no longer holds ends, unless another list holds it."""
    load(service, "198.51.100.1", "198.51.100.2", "198.51.100.3")
    load(service, "198.51.100.3", name="b")
    assert load(service, "198.51.100.2", replace=True) == 1
    assert listed(service) == ["198.51.100.2", "198.51.100.3"]


def test_list_of_many(service: Service, clock: ManualClock) -> None:
    """In the order given, whatever pieces it is taken in; and it ends in its time."""
    many = [f"60.0.{number // 250}.{number % 250}" for number in range(2500)]
    load(service, *many)
    assert listed(service) == many
    clock.tick(3600)
    assert listed(service) == []


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_store_moves(
    service: Service, tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, kind: str
) -> None:
    """From either database to either: listings with their IDs, keys, evidence."""
    key = service.keys.create("client", blocks=True)
    load(service, "198.51.100.1", "2001:db8::/48")
    seen = Sighting(
        7,
        service.now(),
        parse_network("198.51.100.9"),
        "udp",
        "INVITE",
        "nonce",
        users=("100",),
        user_agent="base64:QUJD",
        dialled="base64:%%",
    )
    service.reports.take("pot", Report("0" * 32, [seen]))
    lines = list(export_store(service.database))
    folder = tmp_path_factory.mktemp("other")
    url = f"sqlite:///{folder}/feed.db" if kind == "sqlite" else postgres.fresh()
    with Database(Secret(url)) as other:
        assert import_store(other, lines) == len(lines) - 2
        assert Listings(other, service.now).after(0, ALL) == service.listings.after(0, ALL)
        record = Keys(other, service.now).recognise(key.reveal())
        assert record is not None
        assert (record.name, record.blocks) == ("client", True)
        assert list(export_store(other)) == lines
        assert Keys(other, service.now).create("another")  # numbered after those that came
        with pytest.raises(ApibanError, match="not empty"):
            import_store(other, lines)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda lines: lines[:-1], "cut off"),
        (lambda lines: [], "first line"),
        (lambda lines: lines[1:], "first line"),
        (lambda lines: [*lines[:2], "{", *lines[2:]], "line 3 .* not a JSON object"),
        (lambda lines: [*lines[:2], "[]", *lines[2:]], "line 3 .* not a JSON object"),
        (
            lambda lines: [lines[0], '{"table": "none", "row": {}}', lines[-1]],
            "line 2 .* no row",
        ),
        (lambda lines: [lines[0], '{"table": "note", "row": {"a": 1}}', lines[-1]], "line 2 .* no"),
    ],
)
def test_store_that_is_none(
    service: Service, tmp_path_factory: pytest.TempPathFactory, spoil: object, error: str
) -> None:
    """Nothing of it is taken, and the line is named."""
    service.keys.create("client")
    lines = spoil(list(export_store(service.database)))  # type: ignore[operator]
    with Database(Secret(f"sqlite:///{tmp_path_factory.mktemp('other')}/feed.db")) as other:
        with pytest.raises(ApibanError, match=error):
            import_store(other, lines)
        assert len(list(export_store(other))) == 2


def test_exported_key_is_a_hash(service: Service) -> None:
    """Bytes travel as base64, and what a scanner wrote is never taken for it."""
    key = service.keys.create("client")
    rows = [json.loads(line) for line in export_store(service.database)]
    (row,) = [row["row"] for row in rows if row.get("table") == "key"]
    assert b64decode(row["hash"]) == sha256(key.reveal().encode()).digest()
