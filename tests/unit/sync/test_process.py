import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from apiban.address import parse_network
from apiban.errors import FeedOutage, StoreError
from apiban.gate.board import SETTINGS
from apiban.settings import Mode
from apiban.snapshot import load_snapshot
from apiban.snapshot.publish import durable_path, runtime_path
from apiban.store import FEED_SOURCE, Store
from apiban.sync.report import kept_path, kept_settings

from tests.unit.sync.nodes import SyncNode


def test_list_is_loaded_and_published(node: SyncNode) -> None:
    """From nothing to a snapshot that the workers use and a restart has."""
    node.run(5)
    assert node.banned() == {"1", "2", "3"}
    assert load_snapshot(durable_path(node.state)).expires("192.0.2.1")
    assert node.snapshot().mode is Mode.ENFORCE


def test_each_page_is_published_as_it_comes(node: SyncNode) -> None:
    """Protection grows page by page."""
    node.feed.size = 1
    grown = []
    for _ in range(6):
        node.run(1)
        grown.append(len(node.banned()))
    assert grown[:4] == [0, 1, 2, 3]


def test_stored_list_is_published_at_the_first_tick(node: SyncNode) -> None:
    """After a restart with the feed down the workers get what the store has."""
    node.run(5)
    node.process.close()
    (node.runtime / f"snapshot-{node.board.generation}").unlink()
    node.feed.error = FeedOutage("down")
    node.process = node.make()
    node.run(1)
    assert node.banned() == {"1", "2", "3"}


def test_quiet_node_publishes_nothing_anew(node: SyncNode) -> None:
    """Without a change there is no new generation."""
    node.run(10)
    generation = node.board.generation
    node.run(600)
    assert node.board.generation == generation


# Settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_mode_is_in_force_at_the_next_tick(node: SyncNode, mode: str) -> None:
    """In the workers' snapshot, the durable one, and the store's journal at the next start."""
    node.run(5)
    node.write(mode=mode)
    node.run(2)
    assert str(node.snapshot().mode) == mode
    assert str(load_snapshot(durable_path(node.state)).mode) == mode
    assert node.log.fields("mode") == [{"mode": Mode[mode.upper()], "was": Mode.ENFORCE}]
    assert node.board.words[SETTINGS] == 1


def test_allow_entry_is_in_force_at_the_next_tick(node: SyncNode) -> None:
    """And its removal too; the store's list is untouched by it."""
    node.run(5)
    node.write(allow__networks=["192.0.2.0/31"])
    node.run(2)
    assert node.banned() == {"2", "3"}
    node.write()
    node.run(2)
    assert node.banned() == {"1", "2", "3"}


def test_change_of_what_the_feed_does_not_use_keeps_its_sync(node: SyncNode) -> None:
    """The walk goes on; a change of the feed's own settings begins another sync."""
    node.run(5)
    node.write(mode="shadow")
    node.run(2)
    assert len(node.feeds) == 1
    node.write(feed__interval=60)
    node.run(2)
    assert [settings.interval for settings in node.feeds] == [120.0, 60.0]


def test_bad_settings_keep_the_last_good_ones_and_are_said_once(node: SyncNode) -> None:
    """While they stay bad there is one line; when they are good again one more."""
    node.write(mode="shadow")
    node.run(5)
    node.write(mode="no-such-mode")
    node.run(20)
    assert node.snapshot().mode is Mode.SHADOW
    assert len(node.log.fields("settings-refused")) == 1
    node.write_raw("this is = no = toml")
    node.run(20)
    assert len(node.log.fields("settings-refused")) == 2
    assert node.snapshot().mode is Mode.SHADOW
    assert node.board.words[SETTINGS] == 0
    node.write(mode="off")
    node.run(2)
    assert node.snapshot().mode is Mode.OFF
    assert {"state": "good again"} in node.log.fields("settings")


def test_feed_is_synced_under_bad_settings(node: SyncNode) -> None:
    """New entries come in while the settings wait for their correction."""
    node.run(5)
    node.write(mode="no-such-mode")
    node.feed.add("192.0.2.77")
    node.run(150)
    assert node.snapshot().expires("192.0.2.77")


def test_bad_settings_at_the_start_mean_no_sync_until_they_are_good(node: SyncNode) -> None:
    """Nothing is asked and nothing opened; it is said once."""
    node.write(mode="no-such-mode")
    node.run(20)
    assert node.log.names() == ["sync-idle"]
    assert [path.name for path in node.state.iterdir()] == []
    assert node.feed.cursors == []
    node.write()
    node.run(5)
    assert node.banned() == {"1", "2", "3"}


def test_rewrite_without_a_change_publishes_nothing(node: SyncNode) -> None:
    """The same settings in a new file are the same settings."""
    node.run(5)
    generation = node.board.generation
    node.write()
    node.run(5)
    assert node.board.generation == generation
    assert node.board.words[SETTINGS] == 0


def test_change_of_a_path_waits_for_a_restart(node: SyncNode) -> None:
    """It is said, and the old folder stays in use."""
    node.run(5)
    elsewhere = node.folder / "elsewhere"
    elsewhere.mkdir()
    node.write(paths__state=str(elsewhere), mode="shadow")
    node.run(5)
    assert [path.name for path in elsewhere.iterdir()] == []
    assert node.snapshot().mode is Mode.SHADOW
    assert node.log.fields("settings")[-1]["needs_restart"] == "paths"


def test_settings_file_that_vanishes_keeps_the_last_good_settings(node: SyncNode) -> None:
    """Moving the file away for an edit must not turn shadow into enforce."""
    node.write(mode="shadow", allow__networks=["192.0.2.1"])
    node.run(5)
    node.file.unlink()
    node.run(2)
    assert node.snapshot().mode is Mode.SHADOW
    assert node.banned() == {"2", "3"}


# The key's file --------------------------------------------------------------------------------


def _write_key(path: Path, key: str, mode: int = 0o600) -> None:
    path.write_text(key, encoding="ascii")
    path.chmod(mode)


def test_change_of_the_key_file_is_noticed(node: SyncNode) -> None:
    """A new key is used at the next tick, though the settings file is the same."""
    key_file = node.folder / "key"
    _write_key(key_file, "first-key")
    node.write(feed__key="", feed__key_file=str(key_file))
    node.run(5)
    _write_key(key_file, "second-key")
    node.run(2)
    assert [settings.key.reveal() for settings in node.feeds] == ["first-key", "second-key"]


def test_key_file_that_becomes_unreadable_keeps_the_key(node: SyncNode) -> None:
    """Its loss is said once; its return is noticed."""
    key_file = node.folder / "key"
    _write_key(key_file, "first-key")
    node.write(feed__key="", feed__key_file=str(key_file))
    node.run(5)
    key_file.unlink()
    node.run(300)
    assert len(node.log.fields("settings-refused")) == 1
    assert node.feed.cursors[-1] == "1003"
    _write_key(key_file, "second-key")
    node.run(2)
    assert node.feeds[-1].key.reveal() == "second-key"


@pytest.mark.parametrize("running", [False, True])
def test_correction_of_a_refused_key_file_is_noticed(node: SyncNode, *, running: bool) -> None:
    """A chmod on the file that the line complains of is all that is needed."""
    if running:
        node.run(5)
    key_file = node.folder / "key"
    _write_key(key_file, "first-key", 0o644)
    node.write(feed__key="", feed__key_file=str(key_file))
    node.run(5)
    key_file.chmod(0o600)
    node.run(5)
    assert [one.key.reveal() for one in node.feeds][-1:] == ["first-key"]


# The store -------------------------------------------------------------------------------------


def test_lock_of_another_process_is_waited_for(node: SyncNode) -> None:
    """Two syncers never share a store; it is said once."""
    other = os.open(node.state / "sync.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    node.run(60)
    assert len(node.log.fields("sync-busy")) == 1
    assert node.feed.cursors == []
    assert not (node.state / "store.db").exists()
    os.close(other)
    node.run(5)
    assert node.banned() == {"1", "2", "3"}


def test_second_process_takes_over_when_the_first_ends(node: SyncNode) -> None:
    """As after a reload, when the old sync is still ending."""
    node.run(5)
    second = node.make()
    second.tick()
    assert node.log.names()[-1] == "sync-busy"
    node.process.close()
    node.clock.tick(2)
    node.process = second
    node.feed.add("192.0.2.77")
    node.run(150)
    assert node.snapshot().expires("192.0.2.77")


def test_missing_state_folder_is_said_once_and_then_used(node: SyncNode) -> None:
    """When the folder is there the sync begins, without a restart."""
    node.state.rmdir()
    node.run(30)
    (failed,) = node.log.fields("store-failed")
    assert "the folder must exist" in str(failed["reason"])
    assert "\n" not in str(failed["reason"])
    node.state.mkdir()
    node.run(5)
    assert node.banned() == {"1", "2", "3"}
    assert node.log.fields("store") == [{"state": "good again"}]


def test_unwritable_state_folder_is_said_once_and_then_used(
    node: SyncNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is there and cannot be written is the same."""
    real = os.open

    def refuse(path: Any, *args: Any, **kwargs: Any) -> int:
        if str(path).endswith("sync.lock"):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    node.run(30)
    assert len(node.log.fields("store-failed")) == 1
    monkeypatch.undo()
    node.run(5)
    assert node.banned() == {"1", "2", "3"}


def test_store_of_a_newer_version_is_one_line(node: SyncNode) -> None:
    """The process goes on ticking, and works once the store is the right one."""
    other = sqlite3.connect(node.state / "store.db")
    other.execute("PRAGMA user_version=99")
    other.close()
    node.run(60)
    assert len(node.log.fields("store-failed")) == 1
    assert "newer" in str(node.log.fields("store-failed")[0]["reason"])
    (node.state / "store.db").unlink()
    node.run(5)
    assert node.banned() == {"1", "2", "3"}


def test_damaged_store_is_one_line(node: SyncNode) -> None:
    """The workers keep the last list, and the process goes on."""
    node.run(5)
    node.process.close()
    for path in node.state.glob("store.db*"):
        path.write_bytes(b"garbage" * 1000)
    node.process = node.make()
    node.run(60)
    assert len(node.log.fields("store-failed")) == 1
    assert node.banned() == {"1", "2", "3"}


@pytest.mark.parametrize(
    "change", [{"mode": "off"}, {"allow__networks": ["192.0.2.0/24"]}], ids=["off", "allow"]
)
def test_emergency_switch_works_without_the_store(node: SyncNode, change: dict[str, Any]) -> None:
    """An operator can always stop the drops, whatever is wrong with the store."""
    node.run(5)
    node.process.close()
    for path in node.state.glob("store.db*"):
        path.write_bytes(b"garbage" * 1000)
    node.process = node.make()
    node.run(5)
    node.write(**change)
    node.run(5)
    snapshot = node.snapshot()
    assert snapshot.mode is Mode.OFF or not snapshot.expires("192.0.2.1")


def test_store_that_fails_while_running_recovers(
    node: SyncNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is said once; with room again everything goes on where it was."""
    node.run(5)
    before = len(node.feed.cursors)

    def full(*_: object, **__: object) -> int:
        raise StoreError("store.db: database or disk is full")

    monkeypatch.setattr(Store, "add_request", full)
    node.feed.add("192.0.2.77")
    node.run(300)
    assert len(node.log.fields("store-failed")) == 1
    assert len(node.feed.cursors) == before
    assert node.banned() == {"1", "2", "3"}
    monkeypatch.undo()
    node.run(150)
    assert node.snapshot().expires("192.0.2.77")
    assert node.feed.cursors[before] == "1003"


def test_page_that_never_fits_is_said_once_and_not_asked_for_all_the_time(
    node: SyncNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk too full for a page is one trouble, with a pause between the tries."""
    node.run(5)

    def full(*_: object, **__: object) -> int:
        raise StoreError("store.db: database or disk is full")

    monkeypatch.setattr(Store, "record_page", full)
    node.feed.add("192.0.2.77")
    node.run(3600)
    assert len(node.log.fields("store-failed")) == 1


# Publishing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["durable", "runtime"])
@pytest.mark.parametrize("how", ["deleted", "truncated"])
def test_damaged_publication_is_made_anew(node: SyncNode, which: str, how: str) -> None:
    """At the next tick both files are whole again."""
    node.run(5)
    path = durable_path(node.state)
    if which == "runtime":
        path = runtime_path(node.runtime, node.board.generation)
    if how == "deleted":
        path.unlink()
    else:
        os.truncate(path, 20)
    node.run(1)
    assert load_snapshot(durable_path(node.state)).expires("192.0.2.1")
    assert node.banned() == {"1", "2", "3"}


def test_missing_runtime_folder_is_tried_again(node: SyncNode) -> None:
    """The workers have the list from memory; the file is there once the folder is."""
    node.runtime.rmdir()
    node.run(30)
    assert node.board.generation > 0  # from memory
    node.runtime.mkdir()
    node.run(15)
    assert node.banned() == {"1", "2", "3"}


def test_missing_runtime_folder_is_said_once(node: SyncNode) -> None:
    """A trouble that lasts for an hour is not 360 lines."""
    node.runtime.rmdir()
    node.run(600)
    assert len(node.log.fields("publish-failed")) == 1


def test_unwritable_durable_file_is_tried_again_until_it_is_there(node: SyncNode) -> None:
    """The workers have the list at once, and a restart as soon as the disk allows."""
    obstacle = durable_path(node.state)
    obstacle.mkdir()
    node.run(30)
    assert node.banned() == {"1", "2", "3"}
    assert len(node.log.fields("publish-failed")) == 1
    obstacle.rmdir()
    node.run(15)
    assert load_snapshot(obstacle).expires("192.0.2.1")


def test_unwritable_durable_file_does_not_disturb_the_workers(node: SyncNode) -> None:
    """The same list is not a new generation each 10 s."""
    durable_path(node.state).mkdir()
    node.run(10)
    generation = node.board.generation
    node.run(300)
    assert node.board.generation == generation


def test_own_addresses_are_looked_for_again(node: SyncNode) -> None:
    """An address that the host gets later is free within seconds; one that it lost is not."""
    node.run(5)
    node.own = (parse_network("192.0.2.2"),)
    node.run(7)
    assert node.banned() == {"1", "3"}
    node.own = ()
    node.run(7)
    assert node.banned() == {"1", "2", "3"}


def test_allow_entry_of_the_store_ends_in_time(node: SyncNode) -> None:
    """An address that was allowed for a minute is dropped again after it."""
    node.run(5)
    with Store(node.state / "store.db") as other:
        now = node.clock.now()
        other.allow((parse_network("192.0.2.1"),), reason="x", now=now, expires=now + 60)
    node.write(mode="shadow")
    node.run(2)
    assert node.banned() == {"2", "3"}
    node.run(120)
    assert node.banned() == {"1", "2", "3"}


def test_mode_is_in_the_store_after_a_start(node: SyncNode) -> None:
    """The journal tells since when it is in force."""
    node.write(mode="shadow")
    node.run(5)
    with Store(node.state / "store.db") as other:
        assert other.state("mode") == "shadow"
        assert other.count(FEED_SOURCE) == 3


def test_mode_is_in_the_store_after_a_change(node: SyncNode) -> None:
    """A change while running is in the journal as well."""
    node.run(5)
    node.write(mode="shadow")
    node.run(5)
    with Store(node.state / "store.db") as other:
        assert other.state("mode") == "shadow"


def test_key_is_in_no_line(node: SyncNode) -> None:
    """Neither the settings' lines nor the feed's hold it."""
    node.write(feed__key="s3cret-word")
    node.run(5)
    node.write(feed__key="s3cret word", mode="bad")
    node.run(5)
    assert len(node.log.fields("settings-refused")) == 1
    assert "s3cret" not in repr(node.log.entries)


def test_each_tick_is_on_the_board(node: SyncNode) -> None:
    """Also while the settings are bad: who looks can tell a process that hangs."""
    node.write_raw("mode = perhaps")
    node.process.tick()
    assert node.board.beaten == pytest.approx(node.clock.uptime(), abs=0.001)
    node.write()
    node.run(3)
    assert node.board.beaten == pytest.approx(node.clock.uptime() - 1, abs=0.001)


def test_last_good_settings_are_kept_while_later_ones_are_bad(node: SyncNode) -> None:
    """For the command line: see there."""
    node.write(mode="shadow", node__peers=["203.0.113.5"])
    node.run(2)
    node.write(mode="perhaps")
    node.run(4)
    kept = kept_settings(kept_path(node.runtime))
    assert kept is not None
    assert kept.mode is Mode.SHADOW
    assert [str(one) for one in kept.node.peers] == ["203.0.113.5"]
