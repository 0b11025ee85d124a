import gc
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from apiban.address import parse_network
from apiban.errors import SettingsError
from apiban.kemi import DROP, PASS, Node
from apiban.settings import Mode
from apiban.snapshot import load_snapshot, write_snapshot
from apiban.snapshot.publish import durable_path, runtime_path
from apiban.store import FEED_SOURCE, FeedState, Store
from kamailio_kemi_stubs.fake import FakeKsr

from tests.support.clock import ManualClock
from tests.unit.kemi.parts import LISTED, UNLISTED, packet
from tests.unit.snapshot.parts import only


@dataclass
class _Host:
    """Folders, a settings file, and the nodes that were started there."""

    folder: Path
    state: Path
    runtime: Path
    ksr: FakeKsr

    def write(self, text: str = "") -> None:
        file = self.folder / "apiban.toml"
        file.write_text(
            f'{text}\npaths.state = "{self.state}"\npaths.runtime = "{self.runtime}"\n',
            encoding="utf-8",
        )

    def start(self, previous: Node | None = None, rank: int = 1, **more: Any) -> Node:
        inherited = {name: os.environ[name] for name in ("PATH",)}
        environ = {**inherited, "APIBAN_SETTINGS": str(self.folder / "apiban.toml")}
        node = Node(self.ksr, environ=environ, previous=previous, **more)
        node.child_init(rank)
        return node

    def events(self) -> list[str]:
        return [text.split("event=")[1].split()[0] for _, text in self.ksr.log]

    def lines(self, event: str) -> list[str]:
        return [text for _, text in self.ksr.log if f"event={event} " in text]

    def drops(self, node: Node, source: str) -> bool:
        self.ksr.variables = packet(source)
        return node.guard.verdict() == DROP

    def publish(self, node: Node, *listed: str, generation: int, mode: Mode = Mode.ENFORCE) -> None:
        """Do what the sync process does with a new list."""
        content = only(*listed, generation=generation, mode=mode)
        write_snapshot(durable_path(self.state), content)
        write_snapshot(runtime_path(self.runtime, generation), content)
        node.board.announce(generation)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[_Host]:
    """Give a host with good settings and empty folders."""
    made = _Host(tmp_path, tmp_path / "state", tmp_path / "runtime", FakeKsr("5.6"))
    made.state.mkdir()
    made.runtime.mkdir()
    made.write()
    return made


def _store(host: _Host, *listed: str) -> None:
    with Store(host.state / "store.db") as store:
        store.record_page(
            FEED_SOURCE,
            [parse_network(text) for text in listed],
            listed=1_800_000_000,
            expires=1_900_000_000,
            state=FeedState("x"),
        )


# The start -------------------------------------------------------------------------------------


def test_first_start_passes_everything_and_says_so(host: _Host) -> None:
    """There is no list yet; the shared counters are there for everybody."""
    node = host.start()
    assert not host.drops(node, LISTED)
    assert host.events() == ["no-snapshot", "start"]
    assert (host.runtime / "counters").exists()
    assert node.board.total().passed == 1


def test_start_protects_before_the_first_packet(host: _Host) -> None:
    """The last list is in memory before the workers are there, with no feed and no store."""
    write_snapshot(durable_path(host.state), only(LISTED, generation=7))
    node = host.start()
    assert host.drops(node, LISTED)
    assert not host.drops(node, UNLISTED)
    assert node.board.generation == 7
    assert [slot.generation for slot in node.board.slots()] == [7]
    assert host.events()[0] == "start"
    assert "ranges=1" in host.lines("start")[0]


def test_started_list_is_a_copy_of_the_file(host: _Host) -> None:
    """Cutting the durable file short in place kills no worker."""
    write_snapshot(durable_path(host.state), only(LISTED, generation=7))
    node = host.start()
    os.truncate(durable_path(host.state), 0)
    assert host.drops(node, LISTED)


@pytest.mark.parametrize("damage", ["garbage", "truncated", "flipped", "format"])
def test_damaged_snapshot_is_compiled_anew_from_the_store(host: _Host, damage: str) -> None:
    """Before the first packet too."""
    _store(host, LISTED)
    content = bytearray(only(UNLISTED, generation=7))
    if damage == "garbage":
        content = bytearray(b"x" * 500)
    elif damage == "truncated":
        del content[-8:]
    elif damage == "flipped":
        content[-1] ^= 1
    else:
        content[8] = 9
    durable_path(host.state).write_bytes(content)
    node = host.start()
    assert host.drops(node, LISTED)
    assert not host.drops(node, UNLISTED)
    assert [event for event in host.events() if event != "first-drop"] == [
        "snapshot-refused",
        "start",
    ]
    assert load_snapshot(durable_path(host.state)).expires(LISTED)
    assert node.board.generation == load_snapshot(durable_path(host.state)).generation


def test_missing_snapshot_is_compiled_from_the_store(host: _Host) -> None:
    """The list is durable as long as the store is."""
    _store(host, LISTED)
    assert host.drops(host.start(), LISTED)


def test_damaged_snapshot_and_store_pass_everything(host: _Host) -> None:
    """Nothing of it keeps Kamailio from starting."""
    durable_path(host.state).write_bytes(b"x" * 500)
    (host.state / "store.db").write_bytes(b"y" * 5000)
    node = host.start()
    assert not host.drops(node, LISTED)
    assert host.events() == ["snapshot-refused", "no-snapshot", "start"]
    assert node.board.total().faults == 0


def test_unwritable_runtime_folder_leaves_the_counters_in_memory(host: _Host) -> None:
    """The node protects all the same, and says that nobody else can read them."""
    write_snapshot(durable_path(host.state), only(LISTED, generation=7))
    host.runtime.rmdir()
    host.runtime.write_bytes(b"a file in its place")
    node = host.start()
    assert host.drops(node, LISTED)
    assert node.board.total().dropped == 1
    assert host.events()[:3] == ["fault", "fault", "start"]


def test_missing_folders_are_made(host: _Host) -> None:
    """A wiped /run is no trouble; nobody outside of the group gets in."""
    host.state.rmdir()
    host.runtime.rmdir()
    host.start()
    assert host.state.stat().st_mode & 0o007 == 0
    assert host.runtime.stat().st_mode & 0o007 == 0
    assert (host.runtime / "counters").exists()


def test_missing_folders_are_made_for_the_group_to_work_in(host: _Host) -> None:
    """With setgid, so that what root makes there stays the group's."""
    host.state.rmdir()
    before = os.umask(0o022)
    try:
        host.start()
    finally:
        os.umask(before)
    assert host.state.stat().st_mode & 0o7777 == 0o2770


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_counters_belong_to_the_owner_of_the_state(host: _Host) -> None:
    """Started as root, Kamailio's workers are another user."""
    os.chown(host.state, 4711, 4712)
    host.start()
    status = (host.runtime / "counters").stat()
    assert (status.st_uid, status.st_gid) == (4711, 4712)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_runtime_folder_belongs_to_the_owner_of_the_state(host: _Host) -> None:
    """After a reboot /run is empty: what root makes there must be the workers' to write."""
    os.chown(host.state, 4711, 4712)
    host.runtime.rmdir()
    host.start()
    assert host.runtime.stat().st_uid == 4711


def test_bad_settings_stop_the_start(host: _Host) -> None:
    """With every problem named."""
    host.write('mode = "x"\nfeed.interval = -1')
    with pytest.raises(SettingsError) as caught:
        host.start()
    assert len(caught.value.problems) == 2


def test_key_is_in_no_line(host: _Host) -> None:
    """Only whether there is one."""
    host.write('feed.key = "s3cret-word"')
    (host.folder / "apiban.toml").chmod(0o640)
    host.start()
    assert "key=set" in host.lines("start")[0]
    assert "s3cret-word" not in repr(host.ksr.log)


@pytest.mark.parametrize(
    "setting", ['mode = "off"', 'mode = "shadow"', 'allow.networks = ["192.0.2.0/24"]']
)
def test_settings_of_this_start_are_in_force_with_the_first_packet(
    host: _Host, setting: str
) -> None:
    """A restart with the switch off is off, though the sync never gets to publish."""
    write_snapshot(durable_path(host.state), only(LISTED, generation=7))
    host.write(setting)
    assert not host.drops(host.start(), LISTED)


# Long enough ago, and long enough from now, for the clock of the machine itself.
_AGO, _LATER = 1_000_000_000.0, 9_000_000_000.0


def _operators_mode(
    host: _Host, mode: Mode, *, expires: float | None = None, noted: str = "enforce"
) -> None:
    with Store(host.state / "store.db") as store:
        store.set_state("mode", noted, now=_AGO)
        store.set_mode(mode, now=_AGO, expires=expires)


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.SHADOW])
@pytest.mark.parametrize("expires", [None, _LATER])
def test_operators_mode_is_in_force_with_the_first_packet(
    host: _Host, mode: Mode, expires: float | None
) -> None:
    """A node that was turned off at the command line does not enforce for a moment at its start."""
    write_snapshot(durable_path(host.state), only(LISTED, generation=7))
    _operators_mode(host, mode, expires=expires)
    node = host.start()
    assert not host.drops(node, LISTED)
    assert node.gate.snapshot is not None
    assert node.gate.snapshot.mode is mode
    assert f"mode={mode}" in host.lines("start")[0]


def test_operators_mode_is_in_force_in_a_list_that_is_compiled_at_the_start(host: _Host) -> None:
    """As in one that is there."""
    _store(host, LISTED)
    _operators_mode(host, Mode.OFF)
    node = host.start()
    assert not host.drops(node, LISTED)
    assert load_snapshot(durable_path(host.state)).mode is Mode.OFF


@pytest.mark.parametrize("ended", ["in time", "by the settings"])
def test_ended_mode_of_the_operator_is_not_in_force(host: _Host, ended: str) -> None:
    """A list that was published in it is used in the settings' mode."""
    write_snapshot(durable_path(host.state), only(LISTED, generation=7, mode=Mode.OFF))
    if ended == "in time":
        _operators_mode(host, Mode.OFF, expires=_AGO + 1)
    else:
        _operators_mode(host, Mode.OFF, noted="shadow")
    assert host.drops(host.start(), LISTED)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts for another user")
def test_look_at_the_operators_mode_leaves_the_store_to_its_owner(host: _Host) -> None:
    """Kamailio starts as root, and its sync process writes the store as another user."""
    _operators_mode(host, Mode.OFF)
    os.chown(host.state, 65534, 65534)
    os.chown(host.state / "store.db", 65534, 65534)
    host.start()
    owners = {path.stat().st_uid for path in host.state.glob("store.db*")}
    assert owners == {65534}


def test_lines_go_to_kamailios_log_at_their_level(host: _Host) -> None:
    """Each with its end of line."""
    host.start()
    assert [level for level, _ in host.ksr.log] == ["warn", "notice"]
    assert all(text.startswith("apiban: ") and text.endswith("\n") for _, text in host.ksr.log)


# New lists -------------------------------------------------------------------------------------


def test_published_list_is_adopted(host: _Host) -> None:
    """With the next message."""
    node = host.start()
    host.publish(node, LISTED, generation=1)
    assert host.drops(node, LISTED)


def test_missing_runtime_file_is_replaced_by_the_durable_one(host: _Host) -> None:
    """Where the runtime folder is gone the list still comes."""
    node = host.start()
    shutil.rmtree(host.runtime)
    write_snapshot(durable_path(host.state), only(LISTED, generation=3))
    node.board.announce(3)
    assert host.drops(node, LISTED)
    assert node.board.total().faults == 0


def test_older_durable_file_is_no_replacement(host: _Host) -> None:
    """The list in use is as good; it is one fault."""
    write_snapshot(durable_path(host.state), only(LISTED, generation=3))
    node = host.start()
    node.board.announce(4)
    assert host.drops(node, LISTED)
    assert host.drops(node, LISTED)
    assert node.board.total().faults == 1


# The reload ------------------------------------------------------------------------------------


def test_reload_takes_over_the_list_and_the_counters(host: _Host) -> None:
    """Nothing is unprotected in between, and no count is lost."""
    first = host.start()
    host.publish(first, LISTED, generation=1)
    assert host.drops(first, LISTED)
    second = host.start(previous=first)
    assert host.drops(second, LISTED)
    assert second.board.total().dropped == 2
    assert first.board.total().dropped == 2
    assert "reload" in host.events()


def test_reload_without_files_keeps_the_list(host: _Host) -> None:
    """What the node before has in memory is taken over."""
    write_snapshot(durable_path(host.state), only(LISTED, generation=7))
    first = host.start()
    shutil.rmtree(host.runtime)
    shutil.rmtree(host.state)
    second = host.start(previous=first)
    assert host.drops(second, LISTED)


def test_reload_takes_the_newest_list(host: _Host) -> None:
    """A worker that met no packet since a publication has it after the reload."""
    first = host.start()
    host.publish(first, UNLISTED, generation=1)
    host.publish(first, LISTED, generation=2)
    second = host.start(previous=first)
    assert host.drops(second, LISTED)
    assert [slot.generation for slot in second.board.slots()] == [2]


def test_new_lists_reach_a_reloaded_node(host: _Host) -> None:
    """It has the same board as the sync process."""
    first = host.start()
    host.publish(first, UNLISTED, generation=1)
    second = host.start(previous=host.start(previous=first))
    host.publish(first, LISTED, generation=2)
    assert host.drops(second, LISTED)
    assert not host.drops(second, UNLISTED)


def test_reload_of_an_idle_worker_takes_no_generation_back(host: _Host) -> None:
    """The durable file may be older than what the others use."""
    first = host.start()
    host.publish(first, LISTED, generation=5)
    # The disk is full: the newest list is in the runtime folder alone.
    write_snapshot(runtime_path(host.runtime, 9), only(LISTED, generation=9))
    first.board.announce(9)
    assert first.gate.snapshot is None
    second = host.start(previous=first)
    assert second.board.generation == 9


def test_reload_with_bad_settings_leaves_the_old_node_at_work(host: _Host) -> None:
    """Its counters and its list are untouched."""
    first = host.start()
    host.publish(first, LISTED, generation=1)
    host.write('mode = "x"')
    with pytest.raises(SettingsError):
        host.start(previous=first)
    assert host.drops(first, LISTED)


def test_reloads_leave_no_files_open(host: _Host) -> None:
    """A process that is reloaded each day for a year does not run out of files."""
    node = host.start()
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        node = host.start(previous=node)
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


# Settings while running ------------------------------------------------------------------------


def test_changed_settings_are_taken_with_the_next_list(host: _Host) -> None:
    """Lines and upstreams; the paths stay."""
    node = host.start()
    host.publish(node, LISTED, generation=1)
    elsewhere = host.folder / "elsewhere"
    file = host.folder / "apiban.toml"
    file.write_text(
        'log.first_drops = 0\nedge.upstreams = ["192.0.2.77"]\n'
        f'paths.state = "{elsewhere}"\npaths.runtime = "{elsewhere}"\n',
        encoding="utf-8",
    )
    node.board.announce_settings()
    host.publish(node, LISTED, generation=2)
    assert host.drops(node, LISTED)
    assert host.lines("first-drop") == []
    assert node.settings.paths.state == host.state
    assert str(node.settings.edge.upstreams[0].address) == "192.0.2.77"


def test_tick_takes_changed_settings_too(host: _Host) -> None:
    """The process that meets no packet has the summary's interval."""
    node = host.start(rank=-1, clock=ManualClock())
    node.keeper.tick = lambda: None  # type: ignore[method-assign]
    host.write("log.interval = 5")
    node.tick()
    assert node.keeper.summary_every == 60.0
    node.board.announce_settings()
    node.tick()
    assert node.keeper.summary_every == 5.0


@pytest.mark.parametrize("rank", [1, -1])
def test_settings_that_are_bad_by_now_are_taken_when_they_are_good(host: _Host, rank: int) -> None:
    """Edited good, then bad, within a moment: the old ones stay, and it is no fault."""
    node = host.start(rank=rank, clock=ManualClock())
    node.keeper.tick = lambda: None  # type: ignore[method-assign]
    look = node.guard.keep_up if rank == 1 else node.tick
    host.write("log.interval = -5")
    node.board.announce_settings()
    for _ in range(3):
        look()
    assert node.settings.log.interval == 60.0
    host.write("log.interval = 5")
    host.publish(node, LISTED, generation=1)
    look()
    assert node.settings.log.interval == 5.0
    assert node.board.total().faults == 0
    assert "fault" not in host.events()


def test_clock_is_the_one_given(host: _Host) -> None:
    """The gate's expiry goes by the node's clock as all else does."""
    write_snapshot(durable_path(host.state), only(LISTED, generation=7))
    node = host.start(clock=ManualClock(now=1_950_000_000.0))
    assert not host.drops(node, LISTED)


def test_request_verdict_passes_without_a_message(host: _Host) -> None:
    """Every variable is null where there is no message."""
    node = host.start()
    host.ksr.variables = {}
    assert node.guard.request_verdict() == PASS
