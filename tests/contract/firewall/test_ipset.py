"""What only ipset and iptables need: scratch sets, two programs, the order of foreign rules."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from apiban.errors import FirewallError
from apiban.firewall.elements import FOREVER, Change
from apiban.firewall.ipset import IpsetBackend
from apiban.firewall.ipsets import LONGEST
from apiban.firewall.tool import Done
from apiban.firewall.tool import run as run_tool

from tests.contract.firewall.kits import KITS
from tests.contract.firewall.parts import LISTED, LISTED6, block, blocks, many, rules, same, until
from tests.contract.firewall.world import World, run

ONE = {block(LISTED): FOREVER, block(LISTED6): FOREVER, block("203.0.113.0/24"): FOREVER}
CLEAR = next(kit.clear for kit in KITS if kit.name == "ipset")


@pytest.fixture
def backend(world: World) -> Iterator[IpsetBackend]:
    """Give a backend, with nothing of anybody's in the kernel."""
    CLEAR()
    yield IpsetBackend()
    CLEAR()


def breaking(*programs: str) -> Callable[[Sequence[str], str], Done]:
    """Give what runs tools, of which some fail."""

    def tried(words: Sequence[str], text: str = "") -> Done:
        if words[0] in programs:
            return Done(2, "", f"{words[0]}: line 3 failed\n")
        return run_tool(words, text)

    return tried


def sets() -> list[str]:
    """Give the names of all sets."""
    return sorted(run("ipset", "list", "-n").split())


def test_scratch_sets_of_the_dead_are_taken_out(backend: IpsetBackend) -> None:
    """What a killed client left goes with the next change, small or not, and at removal."""
    backend.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    ours = sets()
    changes = (
        Change(add=many(1)),
        Change(add=ONE, rebuild=True),
    )
    for change in changes:
        run("ipset", "create", "apiban4-new0123abcd", "hash:ip", "timeout", "0")
        run("ipset", "create", "apiban6-allow-new0123abcd", "hash:ip")
        assert backend.read(rules(), now=time.time()) is not None
        backend.apply(change, rules(), now=time.time())
        assert sets() == ours
    run("ipset", "create", "apiban4-new0123abcd", "hash:ip", "timeout", "0")
    backend.remove()
    assert sets() == []


@pytest.mark.parametrize("before", [False, True])
def test_rules_that_cannot_be_made(backend: IpsetBackend, *, before: bool) -> None:
    """When iptables fails, the sets are those that were there, or none."""
    if before:
        backend.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    there = sets()
    broken = IpsetBackend(run=breaking("iptables-restore"))
    with pytest.raises(FirewallError, match="line 3 failed"):
        broken.apply(Change(add=many(9), rebuild=True), rules(), now=time.time())
    assert sets() == there
    held = backend.read(rules(), now=time.time())
    assert same(held, ONE, frozenset()) if before else held is None


def test_iptables_needs_raw_sockets(backend: IpsetBackend) -> None:
    """Where only they are forbidden, the privilege is named, not a module."""

    def tried(words: Sequence[str], text: str = "") -> Done:
        if not words[0].startswith("iptables"):
            return run_tool(words, text)
        less = ("setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw")
        return run_tool([*less, *words], text)

    with pytest.raises(FirewallError, match="CAP_NET_RAW"):
        IpsetBackend(run=tried).apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    assert sets() == []


def test_ip6tables_is_missing(backend: IpsetBackend, world: World) -> None:
    """IPv4 is guarded all the same; that IPv6 is not is said once."""
    said: list[str] = []
    half = IpsetBackend(say=said.append, run=breaking("ip6tables-save", "ip6tables-restore"))
    half.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    assert same(half.read(rules(), now=time.time()), ONE, frozenset())
    assert half.mark() == half.mark()
    assert half.counters()["ipv6"].packets == 0
    assert not world.sends(LISTED)
    assert world.sends(LISTED6)
    half.apply(Change(add=many(3)), rules(), now=time.time())
    half.remove()
    assert sets() == []
    assert said == ["IPv6 is not guarded: ip6tables-save: line 3 failed"]


def test_a_host_without_ipv6(backend: IpsetBackend) -> None:
    """No word is lost where there is no IPv6 to guard, and ip6tables is not asked."""
    said: list[str] = []
    four = IpsetBackend(say=said.append, run=breaking("ip6tables-save"), has_ipv6=lambda: False)
    four.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    assert same(four.read(rules(), now=time.time()), ONE, frozenset())
    assert said == []


def test_rules_of_ipv6_that_cannot_be_made(backend: IpsetBackend, world: World) -> None:
    """The error is told, and IPv4 is guarded."""
    broken = IpsetBackend(run=breaking("ip6tables-restore"))
    with pytest.raises(FirewallError, match="ip6tables-restore"):
        broken.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    assert not world.sends(LISTED)
    held = backend.read(rules(), now=time.time())
    assert held is not None
    assert not held.intact


def test_a_set_of_our_name_that_is_not_ours(backend: IpsetBackend) -> None:
    """It is named before anything is done, and so is the way out; which works."""
    run("ipset", "create", "apiban4", "hash:net")
    with pytest.raises(FirewallError, match=r"apiban4 is another one .*apiban firewall flush"):
        backend.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    assert sets() == ["apiban4"]
    backend.remove()
    backend.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    assert same(backend.read(rules(), now=time.time()), ONE, frozenset())


@pytest.mark.parametrize(
    "command",
    ["add apiban4-net 192.0.2.9", "add apiban4-net 192.0.2.0/28 nomatch"],
)
def test_entries_that_we_would_not_make(backend: IpsetBackend, command: str) -> None:
    """They are no reason to stumble, and go."""
    backend.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    run("ipset", *command.split())
    held = backend.read(rules(), now=time.time())
    assert held is not None
    assert not held.intact
    backend.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    assert same(backend.read(rules(), now=time.time()), ONE, frozenset())


def test_a_set_of_another_type_is_read(backend: IpsetBackend) -> None:
    """Whatever entries it has."""
    run("ipset", "create", "apiban4", "hash:ip,port")
    run("ipset", "add", "apiban4", "192.0.2.9,udp:5060")
    held = backend.read(rules(), now=time.time())
    assert held is not None
    assert not held.intact


@pytest.mark.parametrize(
    ("rule", "intact"),
    [
        ("-s 192.0.2.1 -j DROP", True),
        ("-s 192.0.2.1 -j LOG", True),
        ("-s 192.0.2.1", True),
        ("-i lo -j ACCEPT", False),
        ("-s 192.0.2.1 -j RETURN", False),
        ("-s 192.0.2.1 -g OTHER", False),
    ],
)
def test_rules_of_others_before_ours(backend: IpsetBackend, rule: str, *, intact: bool) -> None:
    """Those that can only drop or log may stay there; a rebuild goes before the rest."""
    run("iptables", "-N", "OTHER")
    backend.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    run("iptables", "-I", "INPUT", *rule.split())
    held = backend.read(rules(), now=time.time())
    assert held is not None
    assert held.intact is intact
    backend.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    assert run("iptables", "-S", "INPUT").splitlines()[1] == "-A INPUT -j APIBAN"
    assert run("iptables", "-S", "INPUT").count("APIBAN") == 1


def test_what_the_kernel_has_no_entry_for(backend: IpsetBackend) -> None:
    """All addresses, the address of zeros, and more time than the kernel counts come back."""
    now = time.time()
    banned = {
        block("0.0.0.0"): int(now) + 900,
        block("::"): FOREVER,
        block("0.0.0.0/0"): int(now) + 800,
        block(LISTED): int(now) + 100_000_000,
    }
    backend.apply(Change(add=banned, allow=blocks("::/0"), rebuild=True), rules(), now=now)
    assert same(backend.read(rules(), now=time.time()), banned, blocks("::/0"), since=now)
    backend.apply(Change(remove=blocks("0.0.0.0/0"), disallow=blocks("::/0")), rules(), now=now)
    del banned[block("0.0.0.0/0")]
    assert same(backend.read(rules(), now=time.time()), banned, frozenset(), since=now)
    # Another process knows what the kernel counts: enough to extend it in time.
    held = IpsetBackend().read(rules(), now=time.time())
    assert held is not None
    assert 2_147_000 < held.banned[block(LISTED)] - now < 2_148_000


@pytest.mark.parametrize("last", [0xC0000202, 0xC0000204, 0xC0000200])
def test_what_is_no_block(backend: IpsetBackend, last: int) -> None:
    """It is refused, not made another one."""
    with pytest.raises(FirewallError, match="no CIDR block"):
        backend.apply(Change(add={(4, 0xC0000201, last): FOREVER}, rebuild=True), rules(), now=0)
    assert sets() == []


@pytest.mark.parametrize("rebuild", [True, False])
@pytest.mark.parametrize(
    "stranger", ["ipset del apiban6 " + LISTED6, "iptables -I APIBAN -j RETURN"]
)
def test_what_came_right_after_a_change_is_not_taken_for_ours(
    backend: IpsetBackend, stranger: str, *, rebuild: bool
) -> None:
    """Neither an element nor a rule, whether all was made anew or not."""
    backend.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    mark, comes = backend.mark(), True

    def with_a_stranger(words: Sequence[str], text: str = "") -> Done:
        nonlocal comes
        done = run_tool(words, text)
        last = "destroy" if rebuild else "add"
        if comes and words[:2] == ("ipset", "restore") and text.startswith(last):
            comes = False
            run(*stranger.split())
        return done

    backend._run = with_a_stranger
    more = ONE | {block("192.0.2.9"): FOREVER}
    change = Change(add=more, rebuild=rebuild)
    assert backend.apply(change, rules(), now=time.time(), since=mark) is None
    assert not comes


def other_words(words: Sequence[str], text: str = "") -> Done:
    """Run tools; iptables-save shows rules in other words than those that this package knows."""
    done = run_tool(words, text)
    if not words[0].endswith("tables-save"):
        return done
    out = done.out.replace("RELATED,ESTABLISHED", "ESTABLISHED,RELATED")
    out = out.replace("-m set --match-set", "-m set ! --return-nomatch --match-set")
    return Done(done.status, out, done.err)


def test_another_versions_words_are_learned(backend: IpsetBackend) -> None:
    """After one rebuild of its own the backend knows how this iptables shows its rules."""
    now, kept = time.time(), rules(established="keep")
    backend.apply(Change(add=ONE, rebuild=True), kept, now=now)
    other = IpsetBackend(run=other_words)
    held = other.read(kept, now=now)
    assert held is not None
    assert not held.intact
    mark = other.apply(Change(add=ONE, rebuild=True), kept, now=now, since=other.mark())
    assert mark is not None
    assert same(other.read(kept, now=now), ONE, frozenset())
    asked = other.read(rules(), now=now)
    assert asked is not None
    assert not asked.intact
    run("iptables", "-A", "APIBAN", "-j", "RETURN")
    held = other.read(kept, now=now)
    assert held is not None
    assert not held.intact


def test_counters_in_other_words(backend: IpsetBackend, world: World) -> None:
    """They are found as well."""
    other = IpsetBackend(run=other_words)
    other.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    assert not world.sends(LISTED)
    assert other.counters()["ipv4"].packets == 1


def test_a_strangers_rule_is_not_learned(backend: IpsetBackend) -> None:
    """One that came in the instant after our rules were made is none of ours."""
    comes = True

    def with_a_stranger(words: Sequence[str], text: str = "") -> Done:
        nonlocal comes
        done = other_words(words, text)
        if words[0] == "iptables-restore" and comes:
            comes = False
            run("iptables", "-I", "APIBAN-LISTED", "-j", "RETURN")
        return done

    other = IpsetBackend(run=with_a_stranger)
    mark = other.apply(Change(add=ONE, rebuild=True), rules(), now=time.time())
    assert (mark, comes) == (None, False)
    held = other.read(rules(), now=time.time())
    assert held is not None
    assert not held.intact


def test_bans_that_end_leave_the_mark(backend: IpsetBackend) -> None:
    """Entries that the kernel takes out when their time is over are no foreign change."""
    now = time.time()
    short = {one: int(now) + 2 for one in many(5)}
    backend.apply(Change(add=ONE | short, rebuild=True), rules(), now=now)
    mark = backend.mark()

    def entries() -> int:
        return run("ipset", "list", "-t", "apiban4").count("entries: 1\n")

    assert until(lambda: entries() == 1)
    assert backend.mark() == mark
    run("ipset", "del", "apiban6", LISTED6)
    assert backend.mark() != mark


def test_an_end_nearer_than_one_that_the_kernel_cannot_hold(backend: IpsetBackend) -> None:
    """It is the end then: the farther one, which was only remembered, is forgotten."""
    now = time.time()
    one = block(LISTED)
    backend.apply(Change(add={one: int(now) + LONGEST + 9}, rebuild=True), rules(), now=now)
    nearer = {one: int(now) + LONGEST // 2 + 100}
    backend.apply(Change(extend=nearer), rules(), now=now)
    assert same(backend.read(rules(), now=time.time()), nearer, frozenset(), since=now)
