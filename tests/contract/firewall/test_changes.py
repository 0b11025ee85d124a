"""What was applied is what is read back."""

from __future__ import annotations

import time

from apiban.firewall.backend import Backend
from apiban.firewall.elements import FOREVER, Block, Change
from apiban.firewall.rules import Port
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.firewall.kits import Kit
from tests.contract.firewall.parts import (
    LISTED,
    LISTED6,
    block,
    blocks,
    many,
    rules,
    same,
    until,
)

FEW = {
    block(LISTED): FOREVER,
    block(LISTED6): FOREVER,
    block("203.0.113.0/24"): FOREVER,
    block("2001:db8:1::/64"): FOREVER,
}


def timed(now: float) -> dict[Block, int]:
    """Give bans of all kinds that end."""
    return {
        block("198.51.100.8"): int(now) + 3600,
        block("2001:db8::8"): int(now) + 60,
        block("10.64.0.0/10"): int(now) + 900_000,
        block("2001:db8:2::/48"): int(now) + 31_000_000,
    }


def test_nothing_of_ours(backend: Backend) -> None:
    """Where nothing of ours is, nothing is read, counted or removed."""
    assert backend.read(rules(), now=time.time()) is None
    assert all(counter.packets == 0 for counter in backend.counters().values())
    backend.remove()


def test_what_is_built_is_read(backend: Backend) -> None:
    """IPv4, IPv6, single addresses, ranges, with an end and without: all come back."""
    now = time.time()
    wanted = FEW | timed(now)
    allowed = blocks("192.0.2.1", "192.0.2.128/25", "2001:db8:a::1", "2001:db8:b::/48")
    backend.apply(Change(add=wanted, allow=allowed, rebuild=True), rules(), now=now)
    assert same(backend.read(rules(), now=time.time()), wanted, allowed, since=now)


def test_nothing_to_hold(backend: Backend) -> None:
    """An empty list is one, and not the same as nothing."""
    backend.apply(Change(rebuild=True), rules(), now=time.time())
    assert same(backend.read(rules(), now=time.time()), {}, frozenset())


def test_all_kinds_of_rules(backend: Backend) -> None:
    """Each set of rules is read as itself, and as no other one."""
    ports = (Port("udp", 5060, 5061), Port("tcp", 5061, 5061), Port("tcp", 443, 443))
    kinds = [
        rules(),
        rules(drops=False),
        rules(established="keep"),
        rules(hooks=("input", "forward")),
        rules(hooks=("forward",)),
        rules(ports=ports[:1]),
        rules(ports=ports),
        rules(interfaces=("eth0",)),
        rules(interfaces=("eth0", "outer"), ports=ports, established="keep"),
    ]
    for built in kinds:
        backend.apply(Change(add=FEW, rebuild=True), built, now=time.time())
        for asked in kinds:
            held = backend.read(asked, now=time.time())
            assert held is not None
            assert held.intact is (asked == built), (asked, built)


def test_what_is_built_is_known_after_a_restart(kit: Kit, backend: Backend) -> None:
    """Another process's backend knows it for its own."""
    one = rules(ports=(Port("udp", 5060, 5061),), interfaces=("a", "b"), established="keep")
    backend.apply(Change(add=FEW, rebuild=True), one, now=time.time())
    assert same(kit.make().read(one, now=time.time()), FEW, frozenset())


def test_one_change_of_everything(backend: Backend) -> None:
    """Adding, extending, removing, allowing and disallowing go together."""
    now = time.time()
    first = FEW | timed(now)
    backend.apply(
        Change(add=first, allow=blocks("192.0.2.1", "192.0.2.128/25"), rebuild=True),
        rules(),
        now=now,
    )
    add = {block("198.51.100.9"): int(now) + 70, block("100.64.0.0/10"): FOREVER}
    extend = {
        block("198.51.100.8"): int(now) + 7200,
        block("2001:db8::8"): FOREVER,
        block("10.64.0.0/10"): int(now) + 60,
        block(LISTED): int(now) + 600,
    }
    remove = blocks(LISTED6, "203.0.113.0/24")
    backend.apply(
        Change(
            add=add,
            extend=extend,
            remove=remove,
            allow=blocks("2001:db8:b::/48"),
            disallow=blocks("192.0.2.1"),
        ),
        rules(),
        now=now,
    )
    wanted = {one: end for one, end in (first | add | extend).items() if one not in remove}
    allowed = blocks("192.0.2.128/25", "2001:db8:b::/48")
    assert same(backend.read(rules(), now=time.time()), wanted, allowed, since=now)


def test_ranges_keep_their_ends_beside_new_ones(backend: Backend) -> None:
    """A range that a change does not name has the same end afterwards, however often."""
    now = time.time()
    kept = {block("10.64.0.0/10"): int(now) + 900, block("2001:db8:2::/48"): int(now) + 900}
    backend.apply(Change(add=kept, rebuild=True), rules(), now=now)
    more = {block("10.1.0.0/16"): FOREVER, block("2001:db8:3::/48"): FOREVER}
    backend.apply(Change(add=more), rules(), now=time.time())
    assert same(backend.read(rules(), now=time.time()), kept | more, frozenset(), since=now)


def test_a_rebuild_is_all_there_is(backend: Backend) -> None:
    """What was there before, and is not in the new list, is gone."""
    now = time.time()
    backend.apply(Change(add=FEW, allow=blocks("192.0.2.1"), rebuild=True), rules(), now=now)
    backend.apply(Change(add=timed(now), rebuild=True), rules(drops=False), now=now)
    held = backend.read(rules(drops=False), now=time.time())
    assert same(held, timed(now), frozenset(), since=now)


def test_an_end_that_is_over_is_no_ban_for_good(backend: Backend) -> None:
    """A ban that ended while the change was made is not put in, least of all for ever."""
    now = time.time()
    over = {block(LISTED): int(now) - 5, block("203.0.113.0/24"): int(now) - 5}
    backend.apply(Change(add=over, rebuild=True), rules(), now=now)
    assert same(backend.read(rules(), now=time.time()), {}, frozenset())
    backend.apply(Change(add=over), rules(), now=now)
    assert same(backend.read(rules(), now=time.time()), {}, frozenset())


def test_the_kernel_ends_bans(backend: Backend) -> None:
    """Without anybody's help, single addresses and ranges go when their time is over."""
    now = time.time()
    short = {
        block(one): int(now) + 2
        for one in ("198.51.100.8", "10.64.0.0/10", "2001:db8::8", "2001:db8:2::/48")
    }
    backend.apply(Change(add=FEW | short, rebuild=True), rules(), now=now)
    assert until(lambda: same(backend.read(rules(), now=time.time()), FEW, frozenset()))


def test_extended_means_longer_and_shortened_shorter(backend: Backend) -> None:
    """A new end counts, in either direction, also for the kernel."""
    now = time.time()
    texts = ("198.51.100.8", "10.64.0.0/10", "2001:db8::8", "2001:db8:2::/48")
    longer = {block(one): int(now) + 2 for one in texts}
    shorter = {
        block(one): int(now) + 5000 for one in ("198.51.100.9", "10.0.0.0/16", "2001:db8::9")
    }
    backend.apply(Change(add=longer | shorter, rebuild=True), rules(), now=now)
    lasting = {one: int(now) + 900 for one in longer}
    change = Change(extend=lasting | {one: int(now) + 2 for one in shorter})
    backend.apply(change, rules(), now=now)
    assert until(
        lambda: same(backend.read(rules(), now=time.time()), lasting, frozenset(), since=now)
    )


def test_what_ended_meanwhile_can_be_changed(backend: Backend) -> None:
    """A change of elements that the kernel has already taken out is carried out all the same."""
    now = time.time()
    backend.apply(Change(add=FEW, rebuild=True), rules(), now=now)
    new = {block("198.51.100.77"): int(now) + 500, block("10.1.0.0/16"): int(now) + 500}
    change = Change(extend=new, remove=blocks("198.51.100.78", "10.2.0.0/16", "2001:db8::99"))
    backend.apply(change, rules(), now=now)
    assert same(backend.read(rules(), now=time.time()), FEW | new, frozenset(), since=now)


def test_the_longest_ban_there_is(backend: Backend) -> None:
    """The last end that is not FOREVER is held as long as the kernel can: for years."""
    now = time.time()
    backend.apply(Change(add={block(LISTED): FOREVER - 1}, rebuild=True), rules(), now=now)
    held = backend.read(rules(), now=time.time())
    assert held is not None
    assert held.banned[block(LISTED)] > now + 20 * 86400


def test_widest_blocks(backend: Backend) -> None:
    """Half of all addresses is a block, too."""
    wide = {block("128.0.0.0/1"): FOREVER, block("8000::/1"): FOREVER}
    backend.apply(Change(add=wide, rebuild=True), rules(), now=time.time())
    assert same(backend.read(rules(), now=time.time()), wide, frozenset())


def test_long_lists(backend: Backend) -> None:
    """20,000 addresses are held, and changed by some, in seconds."""
    now = time.time()
    listed = many(20_000)
    backend.apply(Change(add=listed, rebuild=True), rules(), now=now)
    gone = frozenset(list(listed)[:250])
    new = many(250, "12.0.0.0")
    backend.apply(Change(add=new, remove=gone), rules(), now=now)
    wanted = {one: end for one, end in (listed | new).items() if one not in gone}
    assert same(backend.read(rules(), now=time.time()), wanted, frozenset())


def test_remove_leaves_nothing(backend: Backend) -> None:
    """Nothing of ours is there afterwards; once more is no error."""
    backend.apply(Change(add=FEW, rebuild=True), rules(), now=time.time())
    backend.remove()
    assert backend.read(rules(), now=time.time()) is None
    backend.remove()


def test_the_script_is_shown_and_not_run(backend: Backend) -> None:
    """What would be fed to the tool names the addresses, and changes nothing."""
    shown = backend.script(Change(add=FEW, rebuild=True), rules(), now=time.time())
    assert LISTED in shown
    assert LISTED6 in shown
    assert backend.read(rules(), now=time.time()) is None


POOL = [
    *(f"198.51.100.{number}" for number in range(4)),
    *(f"2001:db8::{number}" for number in range(1, 4)),
    *(f"10.{number}.0.0/16" for number in range(4)),  # neighbours, which must not be joined
    *(f"2001:db8:{number}::/48" for number in range(1, 4)),
]
ENDS = st.one_of(st.none(), st.just(FOREVER), st.integers(100, 10_000_000))
STATES = st.lists(
    st.tuples(
        st.fixed_dictionaries({block(one): ENDS for one in POOL}),
        st.frozensets(st.sampled_from([block(one) for one in POOL])),
    ),
    min_size=2,
    max_size=4,
)


@given(states=STATES)
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_the_changes(
    backend: Backend, states: list[tuple[dict[Block, int | None], frozenset[Block]]]
) -> None:
    """From any state to any other: what is read is what was wanted."""
    now = int(time.time())
    banned: dict[Block, int] = {}
    allowed: frozenset[Block] = frozenset()
    backend.apply(Change(rebuild=True), rules(), now=now)
    for ends, allow in states:
        wanted = {
            one: end if end == FOREVER else now + end
            for one, end in ends.items()
            if end is not None
        }
        change = Change(
            add={one: end for one, end in wanted.items() if one not in banned},
            extend={one: end for one, end in wanted.items() if banned.get(one, end) != end},
            remove=frozenset(banned.keys() - wanted.keys()),
            allow=allow - allowed,
            disallow=allowed - allow,
        )
        if change:
            backend.apply(change, rules(), now=time.time())
        banned, allowed = wanted, allow
        held = backend.read(rules(), now=time.time())
        assert same(held, banned, allowed, since=now), (held, banned, allowed)
