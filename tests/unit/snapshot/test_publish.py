import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from apiban.address import Network, parse_network
from apiban.gate import Board
from apiban.settings import Mode, load_settings
from apiban.snapshot import Origin, load_snapshot, map_snapshot, write_snapshot
from apiban.snapshot.format import FOREVER
from apiban.snapshot.publish import LastList, Publisher, durable_path, runtime_path
from apiban.store import DETECTOR, FEED_SOURCE, LOCAL, FeedState, Store

from tests.support.log import MemoryLog
from tests.unit.snapshot.parts import sample, settings

NOW = 1_800_000_000.0
WEEK = 7 * 86400


class _Place:
    """A store, two folders, a board, and a publisher."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.runtime = folder / "runtime"
        self.state.mkdir()
        self.runtime.mkdir()
        self.store = Store(folder / "store.db")
        self.board = Board.unnamed(now=0)
        self.log = MemoryLog()
        self.publisher = Publisher(self.board, self.log)
        self.allow: tuple[Network, ...] = ()
        self.own: tuple[Network, ...] = ()
        self.mode = Mode.ENFORCE

    def ban(self, *texts: str, source: str = FEED_SOURCE, expires: float = NOW + WEEK) -> None:
        networks = [parse_network(text) for text in texts]
        self.store.record_page(source, networks, listed=NOW, expires=expires, state=FeedState("x"))

    def publish(self) -> bool:
        wanted = settings(self.state, self.runtime, allow=self.allow, mode=self.mode)
        return self.publisher.publish(self.store, wanted, self.own, now=NOW)

    def banned(self, text: str) -> bool:
        snapshot = map_snapshot(runtime_path(self.runtime, self.board.generation))
        return snapshot.expires(text) > 0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[_Place]:
    """Give a place of its own to each test."""
    made = _Place(tmp_path)
    yield made
    made.store.close()


def test_publication_is_durable_mapped_and_announced(place: _Place) -> None:
    """Both files are there before the workers are told."""
    place.ban("192.0.2.1", "2001:db8::/48")
    place.mode = Mode.SHADOW
    assert place.publish()
    durable = load_snapshot(durable_path(place.state))
    mapped = map_snapshot(runtime_path(place.runtime, place.board.generation))
    assert bytes(durable.buffer) == bytes(mapped.buffer)
    assert durable.generation == place.board.generation == 1
    assert durable.mode is Mode.SHADOW
    assert place.banned("192.0.2.1")
    assert place.banned("2001:db8::77")
    assert place.publisher.on_disk
    assert place.publisher.in_place


def test_feed_entries_have_their_grace_and_others_not(place: _Place) -> None:
    """The workers may enforce a feed's entry beyond its time; a local one ends when it ends."""
    place.ban("192.0.2.1")
    place.ban("192.0.2.2", source="local")
    place.ban("192.0.2.3", source="local", expires=1e12)
    place.publish()
    snapshot = load_snapshot(durable_path(place.state))
    assert snapshot.expires("192.0.2.1") == NOW + 2 * WEEK
    assert snapshot.expires("192.0.2.2") == NOW + WEEK
    assert snapshot.expires("192.0.2.3") == FOREVER


def test_origins_of_the_bans_reach_the_snapshot(place: _Place) -> None:
    """Of each source of the store; the longest of several bans has its own."""
    place.ban("192.0.2.1", "192.0.2.4", "198.51.100.0/24", "2001:db8::1")
    place.ban("192.0.2.2", "192.0.2.4", "198.51.100.7", "2001:db8::2", source=LOCAL, expires=1e12)
    place.ban("192.0.2.3", "192.0.2.4", source=DETECTOR, expires=NOW + 60)
    place.publish()
    snapshot = load_snapshot(durable_path(place.state))
    found = {text: snapshot.find(text) for text in ("192.0.2.1", "192.0.2.2", "192.0.2.3")}
    assert found == {
        "192.0.2.1": (NOW + 2 * WEEK, Origin.FEED),
        "192.0.2.2": (FOREVER, Origin.LOCAL),
        "192.0.2.3": (NOW + 60, Origin.DETECTOR),
    }
    others = ("192.0.2.4", "198.51.100.6", "198.51.100.7", "198.51.100.8", "2001:db8::2")
    assert [(snapshot.find(text) or (0, 9))[1] for text in others] == [1, 0, 1, 0, 1]


def test_last_list_keeps_its_origins(place: _Place) -> None:
    """Published again without a store, each range is still whose it was."""
    place.ban("192.0.2.1", "2001:db8::1")
    place.ban("192.0.2.2", source=LOCAL)
    place.ban("192.0.2.3", "2001:db8::3", source=DETECTOR)
    place.publish()
    before = load_snapshot(durable_path(place.state))
    wanted = settings(place.state, place.runtime)
    assert place.publisher.publish(LastList(before), wanted, (), now=NOW)
    after = load_snapshot(durable_path(place.state))
    assert after.generation == before.generation + 1
    assert list(after.ranges()) == list(before.ranges())
    assert [ban[3] for _, ban in after.ranges()] == [0, 1, 2, 0, 2]


def test_fraction_of_a_second_never_shortens_a_ban(place: _Place) -> None:
    """The file holds whole seconds: they are rounded up."""
    place.ban("192.0.2.1", source="local", expires=NOW + 0.25)
    place.publish()
    assert load_snapshot(durable_path(place.state)).expires("192.0.2.1") == NOW + 1


def test_generation_grows_with_each_publication(place: _Place) -> None:
    """Each publication has a number of its own."""
    numbers = []
    for _ in range(3):
        place.publish()
        numbers.append(place.board.generation)
    assert numbers == [1, 2, 3]


def test_generation_grows_beyond_what_is_on_disk(place: _Place) -> None:
    """After a restart the board begins at 0, and the numbers go on all the same."""
    write_snapshot(durable_path(place.state), sample(generation=41))
    place.publish()
    assert place.board.generation == 42


def test_generation_grows_beyond_what_the_workers_use(place: _Place) -> None:
    """A durable file that is older than what the workers have does not set them back."""
    write_snapshot(durable_path(place.state), sample(generation=3))
    place.board.announce(9)
    place.publish()
    assert place.board.generation == 10


def test_damaged_durable_file_is_replaced(place: _Place) -> None:
    """A publication needs nothing of the file that it replaces."""
    durable_path(place.state).write_bytes(b"garbage")
    assert place.publish()
    load_snapshot(durable_path(place.state))


def test_allowed_own_and_upstreams_are_cut_out(place: _Place, tmp_path: Path) -> None:
    """The settings' allow list, the store's, own addresses, upstreams and peers beat every ban."""
    place.ban("192.0.2.0/24")
    place.own = (parse_network("192.0.2.10"),)
    place.store.allow([parse_network("192.0.2.20/31")], reason="x", now=NOW)
    place.store.allow([parse_network("192.0.2.30")], reason="x", now=NOW - 9, expires=NOW)
    path = tmp_path / "apiban.toml"
    path.write_text(
        'allow.networks = ["192.0.2.40"]\nnode.peers = ["192.0.2.50"]\n'
        'edge.upstreams = ["sip:192.0.2.60:5070"]\n'
        f'paths.state = "{place.state}"\npaths.runtime = "{place.runtime}"\n',
        encoding="utf-8",
    )
    place.publisher.publish(place.store, load_settings(path, {}), place.own, now=NOW)
    free = {f"192.0.2.{last}" for last in range(256) if not place.banned(f"192.0.2.{last}")}
    assert free == {f"192.0.2.{last}" for last in (10, 20, 21, 40, 50, 60)}


def test_unwritable_durable_folder_still_reaches_the_workers(place: _Place) -> None:
    """Protection does not wait for the disk; it is said once while it lasts."""
    place.ban("192.0.2.1")
    place.state.rmdir()
    for _ in range(3):
        assert place.publish()
        assert not place.publisher.on_disk
    assert place.banned("192.0.2.1")
    assert len(place.log.fields("publish-failed")) == 1
    place.state.mkdir()
    place.publish()
    assert place.publisher.on_disk
    place.state.joinpath("snapshot").unlink()
    place.state.rmdir()
    place.publish()
    assert len(place.log.fields("publish-failed")) == 2


def test_unwritable_runtime_folder_still_reaches_the_workers(place: _Place) -> None:
    """They have the list from memory; the next start has it too."""
    place.ban("192.0.2.1")
    place.runtime.rmdir()
    assert place.publish()
    assert place.log.names() == ["publish-failed", "published"]
    assert map_snapshot(place.board.memory_path).expires("192.0.2.1")
    assert load_snapshot(durable_path(place.state)).expires("192.0.2.1")


def test_list_in_memory_cannot_be_cut_short_or_changed(place: _Place) -> None:
    """What the workers map is sealed: a mapped file that shrinks would end them."""
    place.ban("192.0.2.1")
    place.publish()
    path = place.board.memory_path
    with pytest.raises(PermissionError):
        os.truncate(path, 10)
    with path.open("r+b") as file, pytest.raises(PermissionError):
        os.write(file.fileno(), b"x")
    assert map_snapshot(path).generation == place.board.generation


def test_lists_in_memory_do_not_pile_up(place: _Place) -> None:
    """The last two are held, for a worker that is just opening one."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        place.publish()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


def test_old_runtime_files_are_tidied(place: _Place) -> None:
    """The last two stay, for a worker that is just opening one; so does what is not ours."""
    others = ["snapshot-x", "snapshot-", "counters"]
    for name in others:
        (place.runtime / name).touch()
    for _ in range(5):
        place.publish()
    assert sorted(path.name for path in place.runtime.iterdir()) == sorted(
        [*others, "snapshot-4", "snapshot-5"]
    )


@pytest.mark.parametrize("which", ["durable", "runtime"])
@pytest.mark.parametrize("how", ["deleted", "truncated", "replaced", "written-over"])
def test_in_place_notices_what_happened_to_its_files(place: _Place, which: str, how: str) -> None:
    """A published file that is gone or changed is noticed, so that it can be made anew."""
    place.ban("192.0.2.1")
    place.publish()
    assert place.publisher.in_place
    path = durable_path(place.state)
    if which == "runtime":
        path = runtime_path(place.runtime, place.board.generation)
    if how == "deleted":
        path.unlink()
    elif how == "truncated":
        os.truncate(path, 10)
    elif how == "replaced":
        write_snapshot(path, sample())
    else:
        with path.open("r+b") as file:
            file.write(b"x")
    assert not place.publisher.in_place
    assert place.publish()
    assert place.publisher.in_place
    assert place.banned("192.0.2.1")


def test_nothing_published_is_in_place() -> None:
    """Before the first publication there is nothing that could be missing."""
    assert Publisher(Board.unnamed(now=0), MemoryLog()).in_place


def test_unwritable_runtime_folder_is_said_once(place: _Place) -> None:
    """A failure that lasts is one line, not one a try."""
    place.runtime.rmdir()
    for _ in range(3):
        assert place.publish()  # from memory
    assert len(place.log.fields("publish-failed")) == 1


@pytest.mark.parametrize("folder", ["state", "runtime"])
def test_scratch_file_of_a_killed_publisher_is_tidied(place: _Place, folder: str) -> None:
    """A publisher killed while it writes leaves no file for good."""
    left = getattr(place, folder) / ".snapshot.99999999.new"
    left.write_bytes(sample())
    place.publish()
    assert not left.exists()


def test_files_of_a_wiped_state_are_tidied(place: _Place) -> None:
    """When the numbers begin anew, the files of the higher ones go."""
    write_snapshot(runtime_path(place.runtime, 500), sample(generation=500))
    place.publish()
    assert [path.name for path in place.runtime.iterdir()] == ["snapshot-1"]
