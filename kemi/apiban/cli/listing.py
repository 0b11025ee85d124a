"""``apiban list``: what is banned, entry by entry."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Final

import click

from apiban.address import Network
from apiban.cli.host import Host, pass_host
from apiban.cli.show import (
    ago,
    many,
    printable,
    reader_may_leave,
    stdout,
    terminal,
    width,
    write_csv,
    write_json_list,
)
from apiban.cli.words import ADDRESS, DURATION
from apiban.errors import ApibanError
from apiban.store import Entry, Filter, Store
from apiban.verdict.explain import until

__all__ = ["entries", "list_entries"]

_PAGE: Final = 5000
_ON_TERMINAL: Final = 100
_COLUMNS: Final = ("network", "source", "reason", "first_listed", "last_listed", "expires")
_MOST_COUNTED: Final = 100_000
_GAP: Final = "  "


@click.command("list")
@click.option("--source", help="Of this source alone: apiban, local, detector.")
@click.option("--family", type=click.Choice(["4", "6"]), help="IPv4 or IPv6 alone.")
@click.option("--within", type=ADDRESS, help="What has an address in common with a network.")
@click.option("--reason", default="", help="Those whose reason holds this text.")
@click.option("--expires-within", type=DURATION, help="What ends within this time, such as 1h.")
@click.option(
    "--limit",
    type=click.IntRange(0),
    help=f"So many at most; 0 is all ({_ON_TERMINAL} on a terminal, else all).",
)
@click.option("--json", "as_json", is_flag=True, help="One array, an entry a line.")
@click.option("--csv", "as_csv", is_flag=True, help="A line of names, then an entry a line.")
@pass_host
def list_entries(host: Host, /, *, as_json: bool, as_csv: bool, **options: Any) -> None:
    """List the entries, in the order of their addresses.

    A network that several sources list is there once for each of them.
    """
    if as_json and as_csv:
        raise click.UsageError("--json or --csv, not both")
    now = host.clock.now()
    wanted = _filter(options, now)
    limit = options["limit"]
    if limit is None:
        limit = _ON_TERMINAL if terminal() and not (as_json or as_csv) else 0
    found = entries(host.store, wanted)
    shown = itertools.islice(found, limit) if limit else found
    given = 0
    with reader_may_leave():
        if as_json:
            write_json_list(map(_document, shown))
        elif as_csv:
            write_csv(_COLUMNS, (tuple(_document(one).values()) for one in shown))
        else:
            given = _write_lines(shown, now)
    if not (as_json or as_csv):
        _tell(given, limit, host.store, wanted, found)


def entries(store: Store, wanted: Filter) -> Iterator[Entry]:
    """Give the entries one by one; however long the list is, a page of it is in memory.

    Raises:
        StoreError

    """
    after: tuple[Network, str] | None = None
    while page := store.page(wanted, after=after, limit=_PAGE):
        yield from page
        after = page[-1].network, page[-1].source


def _filter(options: dict[str, Any], now: float) -> Filter:
    family, within = options["family"], options["expires_within"]
    return Filter(
        source=options["source"],
        family=None if family is None else 4 if family == "4" else 6,
        within=options["within"],
        reason=options["reason"],
        expires_before=None if within is None else now + within,
    )


def _document(entry: Entry) -> dict[str, Any]:
    return {
        "network": str(entry.network),
        "source": entry.source,
        "reason": entry.reason,
        "first_listed": entry.first_listed,
        "last_listed": entry.last_listed,
        "expires": until(entry.expires),
    }


# For people ------------------------------------------------------------------------------------


def _write_lines(rows: Iterable[Entry], now: float) -> int:
    """Write a line an entry, in columns as wide as the first page needs them; give how many."""
    out, most, written = stdout(), width(), 0
    found = iter(rows)
    widths: list[int] = []
    while page := [_cells(one, now) for one in itertools.islice(found, _PAGE)]:
        if not written:
            head = ("network", "source", "last listed", "expires", "reason")
            widths = [max(map(len, column)) for column in zip(head, *page, strict=True)]
            page.insert(0, head)
            written = -1  # the head is no entry
        written += len(page)
        out.write("".join(_line(cells, widths, most) for cells in page))
    return written


def _cells(entry: Entry, now: float) -> tuple[str, ...]:
    expires = until(entry.expires)
    if expires is None:
        end = "for good"
    elif expires <= now:  # it stays until the feed answers, or its grace is over
        end = f"due {ago(expires, now)}"
    else:
        end = ago(expires, now)
    return (
        str(entry.network),
        entry.source,
        ago(entry.last_listed, now),
        end,
        printable(entry.reason),
    )


def _line(cells: tuple[str, ...], widths: list[int], most: int) -> str:
    text = _GAP.join(cell.ljust(wide) for cell, wide in zip(cells, widths, strict=True)).rstrip()
    return (text if len(text) <= most else text[: most - 3] + "...") + "\n"


def _tell(given: int, limit: int, store: Store, wanted: Filter, rest: Iterator[Entry]) -> None:
    """Say how many there are beside those given, on the standard error: a pipe is for entries."""
    if not given:
        click.echo("no entry" if wanted == Filter() else "no entry of that kind", err=True)
    elif limit and given == limit:
        more = _left(given, store, wanted, rest)
        if more:
            click.echo(f"... and {more}; --limit 0 shows all", err=True)


def _left(given: int, store: Store, wanted: Filter, rest: Iterator[Entry]) -> str:
    """Count what was not shown, without walking through a million entries for it."""
    try:
        if wanted == Filter(source=wanted.source):
            counts = store.count_by_source()
            total = sum(counts.values()) if wanted.source is None else counts[wanted.source]
            left = max(total - given, 0)
        else:
            left = sum(1 for _ in itertools.islice(rest, _MOST_COUNTED))
    except ApibanError:
        return "more"
    if left == _MOST_COUNTED:
        return f"{left:,} or more"
    return many(left, "more", "more") if left else ""
