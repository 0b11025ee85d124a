import pytest
from apiban.gate import Gate
from apiban.gate.front import FRONT_SECONDS
from apiban.gate.gate import CACHED_SECONDS
from apiban.settings import Mode
from apiban.snapshot import Origin, Snapshot

from tests.support.clock import ManualClock
from tests.unit.snapshot.parts import only

NOW = 1_800_000_000


def _snapshot(
    *texts: str,
    expires: int = NOW + 3600,
    mode: Mode = Mode.ENFORCE,
    origin: Origin = Origin.FEED,
) -> Snapshot:
    return Snapshot(memoryview(only(*texts, expires=expires, mode=mode, origin=origin)))


@pytest.fixture
def clock() -> ManualClock:
    """Give a clock at NOW."""
    return ManualClock(now=float(NOW))


@pytest.fixture
def gate(clock: ManualClock) -> Gate:
    """Give a gate without a snapshot."""
    return Gate(now=clock.now, timer=clock.uptime)


def test_gate_without_a_snapshot_lets_everything_through(gate: Gate) -> None:
    """Nothing is banned, and the mode is off."""
    assert not gate.is_banned("192.0.2.1")
    assert gate.mode is Mode.OFF
    assert len(gate.listed) == 0


def test_listed_source_is_banned_and_remembered(gate: Gate) -> None:
    """An unlisted one is neither."""
    gate.use(_snapshot("192.0.2.1"))
    assert gate.is_banned("192.0.2.1")
    assert not gate.is_banned("192.0.2.2")
    assert list(gate.listed) == ["192.0.2.1"]


def test_ban_ends_at_its_second(gate: Gate, clock: ManualClock) -> None:
    """It is alive while now is before its end."""
    gate.use(_snapshot("192.0.2.1", expires=NOW + 3600))
    clock.tick(3599.9)
    assert gate.is_banned("192.0.2.1")
    clock.tick(0.1)
    assert not gate.is_banned("192.0.2.1")
    assert "192.0.2.1" not in gate.listed


@pytest.mark.parametrize(
    ("left", "cached"),
    [
        (1, False),
        (CACHED_SECONDS + FRONT_SECONDS + 1, False),
        (CACHED_SECONDS + FRONT_SECONDS + 2, True),
    ],
)
def test_ban_that_ends_sooner_than_the_cache_is_not_cached(
    gate: Gate, left: float, *, cached: bool
) -> None:
    """The cache, and the front that is filled from it, cannot outlive a ban."""
    gate.use(_snapshot("192.0.2.1", expires=NOW + int(left)))
    assert gate.is_banned("192.0.2.1")
    assert ("192.0.2.1" in gate.listed) is cached


def test_cached_source_is_never_there_longer_than_its_ban() -> None:
    """Looked up at any moment before the end, it is free at the end."""
    for before in range(180):
        clock = ManualClock(now=float(NOW))
        gate = Gate(now=clock.now, timer=clock.uptime)
        gate.use(_snapshot("192.0.2.1", expires=NOW + 180))
        clock.tick(before)
        assert gate.is_banned("192.0.2.1")
        clock.tick(180 - before)
        assert "192.0.2.1" not in gate.listed


def test_cached_source_is_forgotten_in_time(gate: Gate, clock: ManualClock) -> None:
    """It goes back to the snapshot once in a while."""
    gate.use(_snapshot("192.0.2.1"))
    gate.is_banned("192.0.2.1")
    clock.tick(CACHED_SECONDS)
    assert "192.0.2.1" not in gate.listed


def test_new_snapshot_clears_the_cache(gate: Gate) -> None:
    """What is no longer listed passes at once."""
    gate.use(_snapshot("192.0.2.1"))
    gate.is_banned("192.0.2.1")
    listed = gate.listed
    gate.use(_snapshot("192.0.2.2"))
    assert gate.listed is listed  # the hot path holds on to it
    assert "192.0.2.1" not in listed
    assert not gate.is_banned("192.0.2.1")
    assert gate.is_banned("192.0.2.2")


def test_no_snapshot_again_lets_everything_through(gate: Gate) -> None:
    """Taking the snapshot away clears the cache as well."""
    gate.use(_snapshot("192.0.2.1"))
    gate.is_banned("192.0.2.1")
    gate.use(None)
    assert "192.0.2.1" not in gate.listed
    assert not gate.is_banned("192.0.2.1")


@pytest.mark.parametrize("mode", list(Mode))
def test_mode_is_the_snapshots(gate: Gate, mode: Mode) -> None:
    """The look-up says what is listed in any mode; the guard decides what follows."""
    gate.use(_snapshot("192.0.2.1", mode=mode))
    assert gate.mode is mode
    assert gate.is_banned("192.0.2.1")


def test_flood_of_sources_does_not_grow_the_cache(gate: Gate) -> None:
    """Beyond its size a source costs its look-up again, and is banned all the same."""
    gate.use(_snapshot("9.0.0.0/16"))
    for number in range(40_000):
        assert gate.is_banned(f"9.0.{number >> 8}.{number & 255}")
    assert len(gate.listed) <= 32_768
    assert gate.is_banned("9.0.0.0")


@pytest.mark.parametrize("origin", list(Origin))
def test_origin_of_a_ban_is_told_and_remembered(gate: Gate, origin: Origin) -> None:
    """Every banned source is cached; of those that no feed lists it is known who banned them."""
    gate.use(_snapshot("192.0.2.1", origin=origin))
    assert gate.origin("192.0.2.1") == origin
    assert gate.origin("192.0.2.2") is None
    assert list(gate.listed) == ["192.0.2.1"]
    assert gate.others == ({} if origin is Origin.FEED else {"192.0.2.1": origin})


def test_new_snapshot_forgets_the_origins(gate: Gate) -> None:
    """Who was banned by hand and now is by a feed is the feed's."""
    gate.use(_snapshot("192.0.2.1", origin=Origin.LOCAL))
    gate.origin("192.0.2.1")
    others = gate.others
    gate.use(_snapshot("192.0.2.1"))
    assert gate.others is others  # the hot path holds on to it
    assert others == {}
    assert gate.origin("192.0.2.1") == Origin.FEED
    assert others == {}


def test_flood_of_sources_banned_by_hand_does_not_grow_the_origins(gate: Gate) -> None:
    """Beyond its size a source costs its look-up again, and keeps its origin."""
    gate.use(_snapshot("9.0.0.0/16", origin=Origin.LOCAL))
    for number in range(40_000):
        assert gate.origin(f"9.0.{number >> 8}.{number & 255}") == Origin.LOCAL
    assert len(gate.others) <= 32_768
    assert all(source in gate.others for source in gate.listed)
