"""Plain lists in and out, and the whole store as one file.

A plain list is for people and firewalls: an address a line. The store's file moves a feed to
another database: JSON, an object a line, the first of which names the format. It holds the hashes
of keys, so whoever writes it to a file keeps it from others.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Column, LargeBinary, Table, func, insert, select

from apiban.address import Network
from apiban.errors import ApibanError
from apiban.feed.server.claims import FILE, Claims, Outcome, Wanted
from apiban.feed.server.database import Database
from apiban.feed.server.database.connect import go_on_numbering
from apiban.feed.server.database.schema import claim, metadata

__all__ = ["export_store", "import_list", "import_store"]

_FORMAT: Final = "apiban-feed-1"
_AT_ONCE: Final = 1000


def import_list(  # noqa: PLR0913 - each is one thing that an operator chooses
    database: Database,
    claims: Claims,
    networks: Sequence[Network],
    *,
    name: str,
    now: Callable[[], float],
    lasts: float,
    replace: bool,
    dataset: str = "sip",
) -> tuple[Outcome, int]:
    """List networks as the source ``file:NAME``, for ``lasts`` seconds.

    With ``replace`` what the source listed before and the list does not hold is taken back. Give
    what came of it, and how many listings ended.

    Raises:
        StoreError: pieces that were taken stay; the import may be done again.

    """
    source = FILE + name
    total = Outcome()
    seen = now()
    for piece in _pieces(networks):
        with database.write() as connection:
            wanted = [Wanted(one, seen, seen + lasts, f"from {name}", dataset) for one in piece]
            outcome = claims.make(connection, source, wanted)
        total.new += outcome.new
        total.reactivated += outcome.reactivated
        total.relisted += outcome.relisted
        total.renewed += outcome.renewed
        total.refused |= outcome.refused
    if not replace:
        return total, 0
    kept = {str(one) for one in networks}
    with database.read() as connection:
        query = select(claim.c.address, claim.c.dataset).where(claim.c.source == source)
        rows = [(row.address, row.dataset) for row in connection.execute(query)]
    ended = 0
    for gone in _pieces([key for key in rows if key[0] not in kept]):
        with database.write() as connection:
            ended += claims.withdraw(connection, source, gone)
    return total, ended


def export_store(database: Database) -> Iterator[str]:
    """Give the store, a line of JSON each, as one moment's state.

    Raises:
        StoreError

    """
    with database.moment() as connection:
        yield json.dumps({"format": _FORMAT})
        for table in metadata.sorted_tables:
            for row in connection.execute(select(table)).yield_per(_AT_ONCE).mappings():
                values = {
                    name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
                    for name, value in row.items()
                }
                yield json.dumps({"table": table.name, "row": values})
        yield json.dumps({"end": True})


def import_store(database: Database, lines: Iterable[str]) -> int:
    """Fill an empty database; give the number of rows. All of it is taken, or nothing.

    Raises:
        ApibanError: the lines are no whole store of this format, or the database is not empty.
        StoreError

    """
    documents = _documents(lines)
    first = next(documents, {})
    if first.get("format") != _FORMAT:
        raise ApibanError(f"not an exported store: its first line must name the format {_FORMAT}")
    count = 0
    with database.write() as connection:
        for table in metadata.sorted_tables:
            rows = connection.execute(select(func.count()).select_from(table)).scalar_one()
            if rows:
                raise ApibanError(f"the database is not empty (table {table.name}: {rows} rows)")
        for table, group in groupby(_rows(documents), key=itemgetter(0)):
            while piece := [row for _, row in islice(group, _AT_ONCE)]:
                connection.execute(insert(table), piece)
                count += len(piece)
        go_on_numbering(connection)
    return count


def _rows(documents: Iterable[dict[str, Any]]) -> Iterator[tuple[Table, dict[str, Any]]]:
    """Give each row with its table, and see that the last line is there."""
    for number, document in enumerate(documents, start=2):
        if document.get("end") is True:
            return
        yield _read_row(document, number)
    raise ApibanError("the exported store is cut off: its last line is missing")


def _documents(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(lines, start=1):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise ApibanError(f"line {number} of the exported store is not a JSON object")
        yield document


def _read_row(document: dict[str, Any], number: int) -> tuple[Table, dict[str, Any]]:
    table = metadata.tables.get(str(document.get("table")))
    row = document.get("row")
    if table is None or not isinstance(row, dict) or set(row) != set(table.c.keys()):
        raise ApibanError(f"line {number} of the exported store is no row of a table known here")
    try:
        return table, {name: _from_json(table.c[name], value) for name, value in row.items()}
    except (ValueError, TypeError):
        raise ApibanError(f"line {number} of the exported store has a damaged value") from None


def _from_json(column: Column[Any], value: Any) -> Any:
    """Give a column's value; bytes travel as base64."""
    if isinstance(column.type, LargeBinary):
        return base64.b64decode(value, validate=True)
    return value


def _pieces(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for at in range(0, len(rows), _AT_ONCE):
        yield rows[at : at + _AT_ONCE]
