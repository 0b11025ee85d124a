import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from apiban.address import Network, parse_network
from apiban.settings import Settings, load_settings
from apiban.snapshot.format import FOREVER
from apiban.store import DETECTOR, FEED_SOURCE, LOCAL, UNBAN, FeedState, Filter, Store
from apiban.verdict.decide import BanPlan, UnbanPlan, ban_end, plan_ban, plan_unban
from apiban.verdict.exempt import Exemption, all_exemptions
from apiban.verdict.wanted import Wanted

NOW = 1_800_000_000.0
DAY = 86400.0


class _World:
    """A store, settings and own addresses; ``ban`` and ``unban`` plan and carry out."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "store.db")
        self.settings: Settings = load_settings(folder / "missing.toml", {})
        self.own = (parse_network("192.0.2.10"),)

    def set(self, **sections: dict[str, object]) -> None:
        """Change settings, a section each."""
        changed = {
            name: replace(getattr(self.settings, name), **values)
            for name, values in sections.items()
        }
        self.settings = replace(self.settings, **changed)

    def ban(self, *texts: str, expires: float = NOW + 60, **more: bool) -> BanPlan:
        plan = plan_ban(
            [Wanted(parse_network(text)) for text in texts],
            exemptions=self.exemptions(),
            feed=self.settings.feed,
            **more,
        )
        plan.carry_out(self.store, expires=expires, now=NOW)
        return plan

    def unban(self, *texts: str, **more: bool) -> UnbanPlan:
        plan = plan_unban(
            [Wanted(parse_network(text)) for text in texts],
            store=self.store,
            exemptions=self.exemptions(),
            feed=self.settings.feed,
            now=NOW,
            **more,
        )
        plan.carry_out(self.store, expires=NOW + DAY, now=NOW)
        return plan

    def exemptions(self) -> list[Exemption]:
        return all_exemptions(settings=self.settings, own=self.own, store=self.store, now=NOW)

    def feed_lists(self, *texts: str, expires: float = NOW + DAY) -> None:
        self.store.record_page(
            FEED_SOURCE, nets(*texts), listed=NOW, expires=expires, state=FeedState("x")
        )

    def banned(self, source: str = LOCAL) -> list[str]:
        return [str(one.network) for one in self.store.page(Filter(source=source))]

    def allowed(self, source: str = UNBAN) -> list[str]:
        return [str(one.network) for one in self.store.allow_list() if one.source == source]


def nets(*texts: str) -> list[Network]:
    """Read networks."""
    return [parse_network(text) for text in texts]


def why(plan: BanPlan | UnbanPlan) -> str:
    """Give why the only one was refused."""
    (refused,) = plan.refused
    return refused.why


@pytest.fixture
def world(tmp_path: Path) -> Iterator[_World]:
    """Give a world whose store is empty."""
    made = _World(tmp_path)
    yield made
    made.store.close()


# Banning ---------------------------------------------------------------------------------------


def test_ban_lists_until_its_end(world: _World) -> None:
    """What may be banned is an entry of the operator's, of both families."""
    plan = world.ban("198.51.100.7", "2001:db8::/48")
    assert not plan.refused
    assert world.banned() == ["198.51.100.7", "2001:db8::/48"]
    (entry,) = world.store.find(parse_network("198.51.100.7"))
    assert entry.expires == NOW + 60


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("192.0.2.10", "an address of this host"),
        ("203.0.113.5", "a peer"),
        ("203.0.113.9", "an upstream"),
        ("198.51.100.0/28", "allow.networks"),
        ("198.51.100.3", "198.51.100.0/28"),
        ("10.1.2.3", "dispatcher: gateway"),
        ("10.0.0.1", "operator: trunk"),
    ],
)
def test_exempt_is_refused_with_who_says_so(world: _World, text: str, said: str) -> None:
    """Settings, this host, Kamailio and the operator's allow list each refuse a ban."""
    world.settings = load_settings(
        Path("/nonexistent"),
        {
            "APIBAN_NODE_PEERS": "203.0.113.5",
            "APIBAN_EDGE_UPSTREAMS": "sip:203.0.113.9:5060",
            "APIBAN_ALLOW_NETWORKS": "198.51.100.0/28",
        },
    )
    world.store.set_allowed("dispatcher", {parse_network("10.1.2.3"): "gateway"}, now=NOW)
    world.store.allow(nets("10.0.0.1"), reason="trunk", now=NOW)
    plan = world.ban(text)
    assert said in why(plan)
    assert plan.ban == ()
    assert world.banned() == []


def test_ended_allow_entry_refuses_nothing(world: _World) -> None:
    """An entry whose time is over is as good as none."""
    world.store.allow(nets("10.0.0.1"), reason="", now=NOW - 9, expires=NOW)
    assert not world.ban("10.0.0.1").refused


def test_range_that_holds_exempt_addresses(world: _World) -> None:
    """It is refused and names them; ``around`` bans it, for they stay exempt anyway."""
    assert "192.0.2.10" in why(world.ban("192.0.2.0/24"))
    assert world.banned() == []
    assert not world.ban("192.0.2.0/24", around=True).refused
    assert world.banned() == ["192.0.2.0/24"]


def test_range_of_which_nothing_is_left(world: _World) -> None:
    """``around`` does not ban a range all of which is exempt, in parts."""
    world.store.allow(nets("10.0.0.0/31", "10.0.0.2", "10.0.0.3"), reason="", now=NOW)
    assert "all of it" in why(world.ban("10.0.0.0/30", around=True))


def test_many_exempt_addresses_are_counted(world: _World) -> None:
    """The reason names three, and says how many more there are."""
    world.store.allow(nets(*(f"10.0.0.{n}" for n in range(1, 9))), reason="", now=NOW)
    said = why(world.ban("10.0.0.0/24"))
    assert "10.0.0.3" in said
    assert "10.0.0.4" not in said
    assert "5 more" in said


@pytest.mark.parametrize(
    ("text", "wide", "refused"),
    [
        ("20.0.0.0/16", False, False),
        ("20.0.0.0/15", False, True),
        ("20.0.0.0/8", True, False),
        ("0.0.0.0/0", True, True),
        ("::/0", True, True),
        ("2001:db8::/32", False, False),
        ("2001:d00::/24", False, True),
    ],
)
def test_width(world: _World, *, text: str, wide: bool, refused: bool) -> None:
    """Wider than a feed may list needs the operator's word, and everybody is never banned."""
    assert bool(world.ban(text, wide=wide).refused) is refused


@pytest.mark.parametrize("text", ["127.0.0.1", "127.9.0.0/16", "::1", "::ffff:127.0.0.7"])
def test_loopback(world: _World, text: str) -> None:
    """It is refused, unless the settings accept private ranges as a lab's do."""
    assert "loopback" in why(world.ban(text))
    world.set(feed={"accept_private": True})
    assert not world.ban(text).refused


def test_ban_lifts_an_earlier_unban(world: _World) -> None:
    """The later word counts: the unban's allow entry goes, whether equal or within the range."""
    for text in ("198.51.100.7", "203.0.113.77"):
        world.feed_lists(text)
        world.unban(text)
    plan = world.ban("198.51.100.7", "203.0.113.0/24")
    assert not plan.refused
    assert len(plan.lift) == 2
    assert world.allowed() == []


def test_ban_inside_an_unbanned_range_lifts_that_part_alone(world: _World) -> None:
    """The rest of the range stays allowed, as long and for the same reason as before."""
    world.store.allow(
        nets("10.0.0.0/30"), reason="an office", now=NOW - 5, expires=NOW + 99, source=UNBAN
    )
    world.ban("10.0.0.1")
    assert world.allowed() == ["10.0.0.0", "10.0.0.2/31"]
    kept = world.store.allow_list()[0]
    assert (kept.reason, kept.added, kept.expires) == ("an office", NOW - 5, NOW + 99)
    assert world.banned() == ["10.0.0.1"]


def test_refused_ban_lifts_nothing(world: _World) -> None:
    """What is not banned leaves the unban's entry alone."""
    world.store.allow(nets("10.0.0.1"), reason="", now=NOW, expires=NOW + 99, source=UNBAN)
    world.store.allow(nets("10.0.0.0/24"), reason="", now=NOW)
    assert world.ban("10.0.0.1").refused
    assert world.allowed() == ["10.0.0.1"]


def test_each_keeps_its_own_reason(world: _World) -> None:
    """Reasons that differ are one transaction all the same; of a repeated one the first counts."""
    wanted = [
        Wanted(parse_network("10.0.0.1")),
        Wanted(parse_network("10.0.0.1"), "first"),
        Wanted(parse_network("10.0.0.2"), "other"),
        Wanted(parse_network("10.0.0.1"), "last"),
    ]
    plan = plan_ban(wanted, exemptions=(), feed=world.settings.feed)
    assert plan.carry_out(world.store, expires=NOW + 5, now=NOW) == 2
    reasons = {str(one): world.store.find(one)[0].reason for one in nets("10.0.0.1", "10.0.0.2")}
    assert reasons == {"10.0.0.1": "first", "10.0.0.2": "other"}


def test_ten_thousand_beside_ten_thousand_take_less_than_a_second(world: _World) -> None:
    """The checks are look-ups: a list of this length is decided in a fraction of a second."""
    numbers = random.Random(5).sample(range(1 << 24, 100 << 24), 20_000)
    hosts = [Network(4, number, number) for number in numbers]
    world.store.allow(hosts[:10_000], reason="", now=NOW)
    exemptions = world.exemptions()
    wanted = [Wanted(one) for one in hosts[5_000:15_000]]
    began = time.process_time()
    plan = plan_ban(wanted, exemptions=exemptions, feed=world.settings.feed)
    assert time.process_time() - began < 1
    assert len(plan.refused) == len(plan.ban) == 5_000


def test_end_of_a_ban() -> None:
    """For good is the last moment that a snapshot knows; nothing is later than that."""
    assert ban_end(NOW, None) == FOREVER
    assert ban_end(NOW, 60) == NOW + 60
    assert ban_end(NOW, 1e12) == FOREVER


# Unbanning -------------------------------------------------------------------------------------


def test_unban_removes_ours_and_the_detectors(world: _World) -> None:
    """What this host itself banned is gone; no allow entry is needed."""
    world.ban("10.0.0.1")
    world.store.ban(nets("10.0.0.1"), source=DETECTOR, reason="", expires=NOW + 9, now=NOW)
    plan = world.unban("10.0.0.1")
    assert {one.source for one in plan.remove} == {LOCAL, DETECTOR}
    assert world.store.touching(parse_network("10.0.0.1")) == []
    assert world.allowed() == []


def test_unban_of_what_the_feed_lists(world: _World) -> None:
    """It is allowed for a time, and the feed's entry stays as the feed has it."""
    world.feed_lists("10.0.0.1")
    world.ban("10.0.0.1")
    plan = world.unban("10.0.0.1")
    assert world.banned() == []
    assert world.banned(FEED_SOURCE) == ["10.0.0.1"]
    assert world.allowed() == ["10.0.0.1"]
    ((_, entry),) = plan.allow
    assert entry.source == FEED_SOURCE
    assert world.store.allow_list()[0].expires == NOW + DAY


def test_unban_inside_a_wider_ban(world: _World) -> None:
    """The range stays banned but for this address."""
    world.ban("10.0.0.0/24")
    plan = world.unban("10.0.0.7")
    assert world.banned() == ["10.0.0.0/24"]
    assert world.allowed() == ["10.0.0.7"]
    assert str(plan.allow[0][1].network) == "10.0.0.0/24"


def test_unban_of_a_range_ends_what_is_inside(world: _World) -> None:
    """Our own bans within it go; where the feed bans a part, the range is allowed."""
    world.ban("10.0.0.5", "10.0.1.5")
    world.unban("10.0.0.0/24")
    assert world.banned() == ["10.0.1.5"]
    assert world.allowed() == []
    world.feed_lists("10.0.0.9")
    world.unban("10.0.0.0/24")
    assert world.allowed() == ["10.0.0.0/24"]


def test_unban_of_a_feeds_expired_entry(world: _World) -> None:
    """While the feed gives no answer an expired entry is enforced; later it counts no more."""
    world.feed_lists("10.0.0.1", expires=NOW - world.settings.feed.stale_max + 1)
    world.feed_lists("10.0.0.2", expires=NOW - world.settings.feed.stale_max)
    plan = world.unban("10.0.0.1", "10.0.0.2")
    assert world.allowed() == ["10.0.0.1"]
    assert [str(one.network) for one in plan.free] == ["10.0.0.2"]


def test_unban_of_what_nobody_bans(world: _World) -> None:
    """It is said, and nothing is written."""
    before = world.store.position()
    plan = world.unban("10.0.0.1")
    assert len(plan.free) == 1
    assert world.store.position() == before


def test_unban_of_what_is_exempt_for_good(world: _World) -> None:
    """An allow entry for good makes another one useless; one that ends does not."""
    world.feed_lists("10.0.0.1", "10.0.0.2")
    world.store.allow(nets("10.0.0.1"), reason="", now=NOW)
    world.store.allow(nets("10.0.0.2"), reason="", now=NOW, expires=NOW + 1)
    plan = world.unban("10.0.0.1", "10.0.0.2")
    assert [str(wanted.network) for wanted, _ in plan.saved] == ["10.0.0.1"]
    assert world.allowed() == ["10.0.0.2"]


def test_unban_of_everybody(world: _World) -> None:
    """It would turn the list off: it is refused, and a wide range needs the operator's word."""
    world.ban("10.0.0.1")
    assert world.unban("0.0.0.0/0", wide=True).refused
    assert world.unban("10.0.0.0/8").refused
    assert world.banned() == ["10.0.0.1"]
    assert not world.unban("10.0.0.0/8", wide=True).refused
    assert world.banned() == []
