from collections.abc import Iterable

import pytest
from apiban.address import Network, parse_address, parse_network
from apiban.feed.server import Catalog
from apiban.feed.server.catalog import PAGE
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

NOW = 1_800_000_000.0
FROM_START = 100


def hosts(*numbers: int) -> list[Network]:
    """Give hosts of these numbers."""
    return [Network(4, number, number) for number in numbers]


def paged(catalog: Catalog, cursor: int = FROM_START) -> tuple[list[Network], int]:
    """Page to the end; give everything, and the last ID."""
    found: list[Network] = []
    while True:
        page, after = catalog.after(cursor)
        if not page:
            assert after == cursor
            return found, cursor
        assert after > cursor
        assert len(page) <= PAGE
        found += page
        cursor = after


@pytest.mark.parametrize("count", [0, 1, 249, 250, 251, 500, 1000])
def test_paging_gives_everything_once_in_order(count: int) -> None:
    """Oldest first, 250 at a time."""
    networks = hosts(*range(count))
    catalog = Catalog(networks, now=NOW)
    assert len(catalog) == count
    assert paged(catalog)[0] == networks
    first, _ = catalog.after(FROM_START)
    assert len(first) == min(count, 250)


def test_listing_twice_is_listing_once() -> None:
    """A list file may name an address again."""
    assert paged(Catalog(hosts(1, 2, 1), now=NOW))[0] == hosts(1, 2)


def test_replacing_keeps_ids() -> None:
    """What stays is not sent to the clients again; what is new is, and only that."""
    catalog = Catalog(hosts(1, 2, 3), now=NOW)
    known = {number: catalog.find(one) for number, one in enumerate(hosts(1, 2, 3), start=1)}
    _, end = paged(catalog)
    catalog.replace(hosts(4, 3, 1))
    assert paged(catalog, end)[0] == hosts(4)
    assert paged(catalog)[0] == hosts(1, 3, 4)
    assert (catalog.find(hosts(1)[0]), catalog.find(hosts(3)[0])) == (known[1], known[3])
    assert catalog.find(hosts(2)[0]) is None


def test_listing_again_gives_a_new_id() -> None:
    """Who had it and dropped it must get it again."""
    catalog = Catalog(hosts(1, 2), now=NOW)
    _, end = paged(catalog)
    catalog.replace(hosts(2))
    catalog.replace(hosts(1, 2))
    assert paged(catalog, end)[0] == hosts(1)
    assert paged(catalog)[0] == hosts(2, 1)


def test_same_list_again_changes_nothing() -> None:
    """A touched file is no news."""
    catalog = Catalog(hosts(1, 2), now=NOW)
    before = paged(catalog)
    catalog.replace(hosts(1, 2))
    catalog.replace(hosts(2, 1))
    assert paged(catalog) == before


def test_client_from_before_a_restart_gets_everything_again() -> None:
    """The clock gives IDs beyond those of the start before, so a kept cursor misses nothing."""
    _, end = paged(Catalog(hosts(*range(900)), now=NOW))
    again = hosts(5000, *range(900))
    assert paged(Catalog(again, now=NOW + 1), end)[0] == again


def test_first_id_is_beyond_the_conventional_start() -> None:
    """ID 100 asks for all."""
    assert Catalog(hosts(1), now=NOW).find(hosts(1)[0]) == int(NOW * 1_000_000)


def test_find_knows_hosts_and_networks() -> None:
    """An address within a listed network is listed, under the network's ID."""
    catalog = Catalog(map(parse_network, ["192.0.2.0/24", "2001:db8::/32", "9.9.9.9"]), now=NOW)
    block = catalog.find(parse_network("192.0.2.0/24"))
    assert block is not None
    assert catalog.find(parse_address("192.0.2.0")) == block
    assert catalog.find(parse_address("192.0.2.255")) == block
    assert catalog.find(parse_address("2001:db8:ffff::1")) is not None
    assert catalog.find(parse_address("::ffff:9.9.9.9")) is not None


@pytest.mark.parametrize(
    "text", ["192.0.1.255", "192.0.3.0", "2001:db9::", "::c000:201", "9.9.9.8"]
)
def test_find_knows_nothing_else(text: str) -> None:
    """Neighbours, and the same number in the other family, are not listed."""
    catalog = Catalog(map(parse_network, ["192.0.2.0/24", "2001:db8::/32", "9.9.9.9"]), now=NOW)
    assert catalog.find(parse_address(text)) is None


def test_removed_network_is_found_no_more() -> None:
    """A replaced list takes its blocks with it."""
    catalog = Catalog([parse_network("192.0.2.0/24")], now=NOW)
    catalog.replace([])
    assert len(catalog) == 0
    assert catalog.find(parse_address("192.0.2.1")) is None
    assert paged(catalog) == ([], FROM_START)


@given(st.sets(st.integers(0, 600), max_size=600), st.integers(0, 2**45))
def test_any_id_gives_exactly_what_is_listed_after_it(numbers: Iterable[int], offset: int) -> None:
    """An ID need not be one that was given out."""
    networks = hosts(*numbers)
    catalog = Catalog(networks, now=NOW)
    cursor = int(NOW * 1_000_000) - 300 + offset % 1200
    wanted = [one for one in networks if (catalog.find(one) or 0) > cursor]
    assert paged(catalog, cursor)[0] == wanted


class PagingWhileListsAreReplaced(RuleBasedStateMachine):
    """Clients that page, a page now and then, while the operator edits the list."""

    @initialize(numbers=st.sets(st.integers(0, 900)))
    def start(self, numbers: set[int]) -> None:
        """Begin with a list, and a client that knows nothing."""
        self.now = numbers
        self.catalog = Catalog(hosts(*numbers), now=NOW)
        self.ids: dict[int, int] = {}  # ID -> number, of all that were ever given out
        self.cursor = FROM_START
        self.seen: set[int] = set()

    @rule(add=st.sets(st.integers(0, 900)), keep=st.integers(1, 5))
    def edit(self, add: set[int], keep: int) -> None:
        """Take some out, put some in."""
        kept = {number for number in self.now if number % keep == 0}
        self.now = kept | add
        self.catalog.replace(hosts(*sorted(self.now, reverse=True)))
        self.seen &= self.now  # who is listed anew must be sent anew

    @rule()
    def page(self) -> None:
        """Fetch one page."""
        page, self.cursor = self.catalog.after(self.cursor)
        self.seen |= {one.first for one in page}

    @invariant()
    def ids_are_never_used_again(self) -> None:
        """Check that an ID belongs to one address for ever."""
        for number in getattr(self, "now", ()):
            identity = self.catalog.find(hosts(number)[0])
            assert identity is not None
            assert self.ids.setdefault(identity, number) == number

    @invariant()
    def nothing_is_missed(self) -> None:
        """Check that the pages so far and those to come hold all that is listed."""
        if hasattr(self, "catalog"):
            rest, _ = paged(self.catalog, self.cursor)
            assert self.now <= self.seen | {one.first for one in rest}


TestPagingWhileListsAreReplaced = PagingWhileListsAreReplaced.TestCase
TestPagingWhileListsAreReplaced.__doc__ = "Paging from any ID misses nothing, and terminates."
