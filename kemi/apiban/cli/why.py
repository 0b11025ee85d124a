"""``apiban why``: is an address banned, and exactly why, or why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from apiban.address import Network
from apiban.cli.check import look_up
from apiban.cli.host import Host, pass_host
from apiban.cli.kernel import kernel
from apiban.cli.look import open_hits
from apiban.cli.published import Published, published
from apiban.cli.show import (
    HOST,
    Sheet,
    ago,
    many,
    printable,
    rate,
    span,
    until_when,
    write_json,
)
from apiban.cli.words import when
from apiban.gate.hits import Hit
from apiban.settings import Mode
from apiban.verdict.exempt import Exemption
from apiban.verdict.explain import Listing, Verdict

__all__ = ["why"]


@click.command()
@click.argument("addresses", type=HOST, nargs=-1, required=True, metavar="ADDRESS...")
@click.option("--json", "as_json", is_flag=True, help="One array, with an object an address.")
@pass_host
def why(host: Host, /, *, addresses: Sequence[Network], as_json: bool) -> None:
    """Tell whether addresses are banned, and exactly why or why not.

    Which source lists which range, since when and until when; what saves it; what came from it to
    this node; and whether the workers' list says the same.
    """
    list_ = published(host)
    told = [_Told(host, address, list_) for address in addresses]
    if as_json:
        write_json([one.document() for one in told])
        return
    sheet = Sheet()
    for number, one in enumerate(told):
        if number:
            sheet.gap()
        one.put(sheet)
    sheet.write()


class _Told:
    """What is known of one address."""

    def __init__(self, host: Host, address: Network, list_: Published | None) -> None:
        self._now = host.clock.now()
        self._verdict: Verdict = look_up(host, address)
        self._list = list_
        hits = open_hits(host)
        self._hit: Hit | None = None if hits is None else hits.of(str(address))
        board = host.board
        self._runs = board is not None
        self._kernel = kernel(host)
        self._changes = host.store.position()
        self._behind = 0
        if board is not None and board.position:
            self._behind = max(host.store.position() - host.known(), 0)

    # For machines ------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """Give all of it under stable names."""
        verdict, list_ = self._verdict, self._list
        return {
            "address": str(verdict.address),
            "banned": verdict.banned,
            "dropped": verdict.dropped,
            "mode": str(verdict.mode),
            "expires": verdict.expires if verdict.banned else None,
            "enforced_until": verdict.ends if verdict.banned else None,
            "listed_by": [
                {
                    "network": str(one.entry.network),
                    "source": one.entry.source,
                    "reason": one.entry.reason,
                    "first_listed": one.entry.first_listed,
                    "last_listed": one.entry.last_listed,
                    "expires": one.expires,
                    "enforced_until": one.ends,
                    "in_force": one.in_force,
                }
                for one in verdict.listings
            ],
            "saved_by": [
                {
                    "network": str(one.network),
                    "kind": one.kind,
                    "source": one.allowed.source if one.allowed else None,
                    "reason": one.allowed.reason if one.allowed else None,
                    "expires": one.allowed.expires if one.allowed else None,
                }
                for one in verdict.exemptions
            ],
            "hits": None if self._hit is None else _hit_document(self._hit),
            "published": None
            if list_ is None
            else {
                "generation": list_.snapshot.generation,
                "in_use": list_.in_use,
                "mode": str(list_.snapshot.mode),
                "banned": self._published_end(list_) > self._now,
                "changes_behind": self._behind,
            },
            "kernel": self._held(),
            "agrees": not list(self._contradictions()),
        }

    # For people --------------------------------------------------------------------------------

    def put(self, sheet: Sheet) -> None:
        """Put the answer first, then what it rests on."""
        verdict = self._verdict
        answer, style = self._answer()
        sheet.head(f"{verdict.address}  {answer}", style=style)
        if verdict.banned and not verdict.dropped:
            effect = "only counted and logged" if verdict.mode is Mode.SHADOW else "let through"
            sheet.add(f"{verdict.mode}: what it sends is {effect}", label="mode", style="bold red")
        for text in self._contradictions():
            sheet.add(text, label="BUT", style="bold red")
        for exemption in verdict.exemptions:
            sheet.add(_saved(exemption, self._now), label="saved by")
        for listing in verdict.listings:
            self._put_listing(sheet, listing)
        if self._hit is not None:
            _put_hit(sheet, self._hit, self._now)
        elif self._runs and verdict.listed:
            sheet.add("nothing known of it since Kamailio's start", label="hits")
        if self._kernel is not None:
            sheet.add(self._in_kernel(), label="kernel")

    def _answer(self) -> tuple[str, str]:
        """Give the answer, and its style."""
        verdict = self._verdict
        if not verdict.banned:
            if verdict.listed:
                return "not banned: it is listed, and saved", "bold green"
            over = verdict.listings and "not banned any more: its time is over"
            return over or "not banned: no source lists it", "bold green"
        end = verdict.expires
        if end is None:
            return "BANNED for good", "bold red"
        if end > self._now:
            return f"BANNED until {until_when(end, self._now)}", "bold red"
        return "BANNED beyond its time", "bold red"

    def _put_listing(self, sheet: Sheet, listing: Listing) -> None:
        entry, now = listing.entry, self._now
        reason = f": {printable(entry.reason)}" if entry.reason else ""
        sheet.add(f"{entry.network} by {entry.source}{reason}", label="listed")
        first, last = entry.first_listed, entry.last_listed
        again = f", last {ago(last, now)}" if last != first else ""
        sheet.add(f"first {when(first)} UTC ({ago(first, now)}){again}")
        expires, ends = listing.expires, listing.ends
        if expires is None or ends is None:
            sheet.add("for good")
        elif not listing.in_force:
            sheet.add(f"its time is over, since {ago(ends, now)}")
        elif expires <= now:
            sheet.add(
                f"its time is over since {when(expires)} UTC; the feed could not renew it, so that "
                f"it stays until the feed answers, at the latest until {until_when(ends, now)}"
            )
        else:
            stays = (
                f", {span(ends - expires)} later if the feed is silent"
                if ends - expires > 1
                else ""
            )
            sheet.add(f"expires {when(expires)} UTC ({ago(expires, now)}){stays}")

    def _held(self) -> bool | None:
        """Tell whether the kernel holds it, by its client's report; None when that cannot tell."""
        kernel = self._kernel
        if kernel is None or not kernel.runs:
            return None
        if kernel.report.mode == "off":
            return False
        if kernel.report.sources == "flooding":
            found = kernel.flooding(self._verdict.address) is not None
            return found or (None if not kernel.names_all else False)
        list_ = self._list
        if not kernel.report.generation and kernel.report.position == self._changes:
            return self._verdict.banned  # its client made the list of the store
        if list_ is None or list_.snapshot.generation != kernel.report.generation:
            return None
        return self._published_end(list_) > self._now

    def _in_kernel(self) -> str:
        """Say the same."""
        kernel, held = self._kernel, self._held()
        if kernel is None or not kernel.runs:
            return "not known: the firewall client runs no more"
        report = kernel.report
        flooding = kernel.flooding(self._verdict.address)
        if held is None:
            if report.sources == "flooding":
                return "not known: more sources flood than its client names"
            return "not known: the firewall client has another list than what is published"
        if flooding is not None:
            end = ago(flooding.until, self._now)
            told = f"held since it floods ({rate(flooding.rate)} packets a second), ends {end}"
        elif held:
            told = "held"
        else:
            told = "not held: " + (
                f"mode {report.mode}"
                if report.mode == "off"
                else "it does not flood"
                if report.sources == "flooding"
                else "its list does not ban it"
            )
        return told + (", and only counted" if held and report.mode == "shadow" else "")

    def _contradictions(self) -> Iterator[str]:
        """Say where the list that the workers use says another thing than store and settings."""
        list_, verdict = self._list, self._verdict
        if list_ is None:
            if self._runs and verdict.banned:
                yield "the workers have no list that can be read: apiban doctor says more"
            return
        if not list_.in_use:
            yield from self._next_start(list_)
            return
        bans = self._published_end(list_) > self._now
        if bans is not verdict.banned:
            does = "still bans it" if bans else "does not ban it yet"
            about = f"the workers' list (generation {list_.snapshot.generation}) {does}"
            if self._behind:
                yield f"{about}: it lacks the store's last {many(self._behind, 'change')}"
            else:
                yield f"{about}; apiban doctor says more"
        if list_.snapshot.mode is not verdict.mode:
            yield f"the workers' list is still in mode {list_.snapshot.mode}, not {verdict.mode}"

    def _next_start(self, list_: Published) -> Iterator[str]:
        if (self._published_end(list_) > self._now) is self._verdict.banned:
            return
        if self._kernel is not None and self._kernel.runs:
            yield "the list that the firewall client goes by may lack a change: apiban doctor"
        else:
            yield "no Kamailio runs here, and the list that its start begins with says otherwise"

    def _published_end(self, list_: Published) -> float:
        return float(list_.snapshot.expires(str(self._verdict.address)))


def _saved(one: Exemption, now: float) -> str:
    end = ""
    if one.allowed is not None and one.allowed.expires is not None:
        end = f", until {until_when(one.allowed.expires, now)}"
    return f"{printable(str(one))}, {one.network}{end}"


def _put_hit(sheet: Sheet, hit: Hit, now: float) -> None:
    about = "" if hit.exact else "about "
    counts = [f"{about}{many(hit.dropped, 'packet')} dropped"] if hit.dropped else []
    if hit.would_drop:
        counts.append(f"{many(hit.would_drop, 'packet')} that would be dropped")
    sheet.add(", ".join(counts) or "seen, and nothing was dropped", label="hits")
    first, last = hit.first_seen, hit.last_seen
    sheet.add(f"first {when(first)} UTC ({ago(first, now)}), last {ago(last, now)}")
    if hit.transport:
        sheet.add(f"by {hit.transport} from port {hit.port}: {printable(hit.line)}")


def _hit_document(hit: Hit) -> dict[str, Any]:
    return {
        "dropped": hit.dropped,
        "would_drop": hit.would_drop,
        "exact": hit.exact,
        "origin": hit.origin.source,
        "first_seen": hit.first_seen,
        "last_seen": hit.last_seen,
        "transport": hit.transport or None,
        "port": hit.port or None,
        "line": hit.line or None,
    }
