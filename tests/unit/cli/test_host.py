import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apiban.address import parse_network
from apiban.cli.host import Host
from apiban.cli.in_force import wait_in_force
from apiban.errors import SettingsError, StoreError
from apiban.firewall.report import report_path as firewall_path
from apiban.firewall.report import write_report as write_firewall
from apiban.gate import Board
from apiban.settings import Mode
from apiban.store import LOCAL, Store
from apiban.sync.report import report_path, write_report

from tests.support.clock import ManualClock
from tests.support.reports import firewall_report, sync_report

_DEAD = 2**22 + 1  # no process has this number


class _Place:
    """A settings file, two folders, and a host over them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state, self.runtime = folder, folder / "state", folder / "run"
        self.state.mkdir()
        self.runtime.mkdir()
        self.clock = ManualClock()
        self.file = folder / "apiban.toml"
        self.file.write_text(
            f'mode = "shadow"\npaths.state = "{self.state}"\npaths.runtime = "{self.runtime}"\n',
            encoding="utf-8",
        )
        self.host = Host(file=self.file, clock=self.clock)

    def kamailio(self, pid: int) -> Board:
        """Make the counters of a Kamailio whose worker has this process id."""
        board = Board.create(self.runtime / "counters", now=0)
        board.take_slot(1, pid)
        return board

    def report(self, *, pid: int, age: float = 0, store: int = 0) -> None:
        """Write what a sync process says of itself."""
        report = sync_report(pid=pid, at=self.clock.now() - age, budget_left=5, store=store)
        assert write_report(report_path(self.runtime), report)

    def firewall(self, **values: Any) -> None:
        """Write what a firewall client says of itself."""
        report = firewall_report(**{"at": self.clock.now(), **values})
        write_firewall(firewall_path(self.runtime), report)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[_Place]:
    """Give a place where nothing runs."""
    made = _Place(tmp_path)
    yield made
    made.host.close()


# Settings and folders --------------------------------------------------------------------------


def test_settings_are_those_of_the_command_line(place: _Place) -> None:
    """Its file goes before the environment's, its folders before the settings'."""
    assert place.host.settings.mode is Mode.SHADOW
    assert place.host.settings.paths.state == place.state
    other = Host(file=place.file, state=place.folder / "s", runtime=place.folder / "r")
    assert other.store_path == place.folder / "s" / "store.db"
    assert other.settings.paths.runtime == place.folder / "r"
    assert other.environ()["APIBAN_SETTINGS"] == str(place.file)


def test_settings_file_that_is_not_there_is_an_error(place: _Place) -> None:
    """A slip in --settings must not mean the defaults."""
    with pytest.raises(SettingsError, match="no file"):
        _ = Host(file=place.folder / "typo.toml").settings


# The store -------------------------------------------------------------------------------------


def test_reading_makes_no_store(place: _Place) -> None:
    """It says who makes it."""
    with pytest.raises(StoreError, match="there is no store yet"):
        _ = place.host.store
    assert place.host.mode() is Mode.SHADOW
    assert list(place.state.iterdir()) == []


def test_writing_makes_the_store_for_the_group(place: _Place) -> None:
    """Once: it is the store that is read as well."""
    store = place.host.store_to_write()
    assert place.host.store is store
    assert place.host.store_to_write() is store
    modes = {stat.S_IMODE(path.stat().st_mode) for path in place.state.iterdir()}
    assert modes == {0o660}


def test_writing_without_the_folder_is_an_error(place: _Place) -> None:
    """The folder is made by the installation or by Kamailio, with the rights that it needs."""
    place.state.rmdir()
    with pytest.raises(StoreError, match=r"paths\.state names it"):
        place.host.store_to_write()


def test_store_that_is_not_ours_to_write_is_an_error(
    place: _Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what the operator has to be."""
    Store(place.host.store_path).close()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StoreError, match="member of the group"):
        _ = place.host.store


def test_closing_closes_the_store(place: _Place) -> None:
    """What was opened is let go."""
    store = place.host.store_to_write()
    place.host.close()
    with pytest.raises(StoreError):
        store.count(LOCAL)


def test_mode_is_the_operators_before_the_settings(place: _Place) -> None:
    """Until its end."""
    store = place.host.store_to_write()
    now = place.clock.now()
    store.set_mode(Mode.OFF, now=now, expires=now + 10)
    assert place.host.mode() is Mode.OFF
    place.clock.tick(10)
    assert place.host.mode() is Mode.SHADOW


# What runs -------------------------------------------------------------------------------------


def test_counters_are_those_of_a_running_kamailio(place: _Place) -> None:
    """What a Kamailio left behind that has ended is none."""
    assert place.host.board is None
    place.kamailio(_DEAD)
    assert Host(file=place.file).board is None
    place.kamailio(os.getpid()).announce(7)
    board = Host(file=place.file).board
    assert board is not None
    assert board.generation == 7


def test_report_is_that_of_a_running_sync(place: _Place) -> None:
    """Not of one that has ended, nor of one that writes no more."""
    assert place.host.report() is None
    place.report(pid=os.getpid(), age=60)
    assert place.host.report() is not None
    place.report(pid=os.getpid(), age=90)
    assert place.host.report() is None
    place.report(pid=_DEAD)
    assert place.host.report() is None
    report_path(place.runtime).write_text("{", encoding="utf-8")
    assert place.host.report() is None


# In force --------------------------------------------------------------------------------------


def _ban(store: Store, text: str) -> None:
    store.ban([parse_network(text)], source=LOCAL, reason="", expires=2e9, now=1.0)


def test_change_is_in_force_when_the_published_list_knows_it(place: _Place) -> None:
    """And not a moment before."""
    board = place.kamailio(os.getpid())
    place.report(pid=os.getpid())
    store = place.host.store_to_write()
    _ban(store, "192.0.2.1")
    board.announce(1, position=0)
    assert wait_in_force(place.host, store, at_most=0.05).seconds is None
    publish = threading.Timer(0.1, lambda: board.announce(2, position=store.noted))
    publish.start()
    found = wait_in_force(place.host, store, at_most=10)
    publish.join()
    assert found.seconds is not None
    assert found.seconds >= 0.05
    assert (found.generation, found.why_not) == (2, "")


def test_what_others_change_is_not_waited_for(place: _Place) -> None:
    """The sync notes what ended without publishing it: the list is the same."""
    board = place.kamailio(os.getpid())
    place.report(pid=os.getpid())
    store = place.host.store_to_write()
    _ban(store, "192.0.2.1")
    board.announce(1, position=store.noted)
    with Store(place.host.store_path) as other:
        _ban(other, "192.0.2.2")
    assert wait_in_force(place.host, store, at_most=0.05).seconds is not None


def test_without_kamailio_or_sync_it_says_so(place: _Place) -> None:
    """At once, and not after a wait."""
    store = place.host.store_to_write()
    _ban(store, "192.0.2.1")
    assert "no Kamailio runs" in wait_in_force(place.host, store, at_most=600).why_not
    place.kamailio(os.getpid())
    host = Host(file=place.file, clock=place.clock)
    assert "no sync process" in wait_in_force(host, store, at_most=600).why_not


def test_list_that_is_not_published_is_told(place: _Place) -> None:
    """After the time given; the change is in the store all the same."""
    place.kamailio(os.getpid())
    place.report(pid=os.getpid())
    store = place.host.store_to_write()
    _ban(store, "192.0.2.1")
    found = wait_in_force(place.host, store, at_most=0.05)
    assert found.seconds is None
    assert "not published within 0.05 s" in found.why_not


def test_other_store_than_the_syncs_is_told(place: _Place) -> None:
    """Its numbers mean nothing for the list of this runtime folder."""
    board = place.kamailio(os.getpid())
    store = place.host.store_to_write()
    _ban(store, "192.0.2.1")
    board.announce(1, position=store.noted)
    place.report(pid=os.getpid(), store=place.host.store_path.stat().st_ino)
    assert wait_in_force(place.host, store, at_most=0.05).seconds is not None
    place.report(pid=os.getpid(), store=place.host.store_path.stat().st_ino + 1)
    found = wait_in_force(place.host, store, at_most=0.05)
    assert found.seconds is None
    assert "has another store" in found.why_not
    place.report(pid=os.getpid())
    assert not place.host.other_store()
    board.announce(2, position=store.noted + 1)  # no list knows more than there is
    assert "has another store" in place.host.other_store()


def test_change_is_in_force_when_the_kernel_has_it_too(place: _Place) -> None:
    """Where a firewall client runs beside Kamailio, both are waited for, and who lags is named."""
    board = place.kamailio(os.getpid())
    place.report(pid=os.getpid())
    store = place.host.store_to_write()
    _ban(store, "192.0.2.1")
    place.firewall(position=0, trouble="the kernel's module nf_tables is missing")
    board.announce(1, position=store.noted)
    found = wait_in_force(place.host, store, at_most=0.05)
    assert (found.seconds, found.where) == (None, ("kamailio",))
    assert "Kamailio has it; not in the kernel within 0.05 s" in found.why_not
    assert "module nf_tables is missing" in found.why_not
    late = threading.Timer(0.1, lambda: place.firewall(position=store.noted))
    late.start()
    found = wait_in_force(place.host, store, at_most=10)
    late.join()
    assert found.seconds is not None
    assert found.seconds >= 0.05
    assert found.where == ("kamailio", "kernel")
    _ban(store, "192.0.2.2")
    place.firewall(position=store.noted)
    found = wait_in_force(place.host, store, at_most=0.05)
    assert (found.seconds, found.where) == (None, ("kernel",))
    assert "the kernel has it; not published within" in found.why_not


def test_change_is_in_force_in_the_kernel_alone(place: _Place) -> None:
    """On a host without Kamailio; a client that has died is none."""
    store = place.host.store_to_write()
    _ban(store, "192.0.2.1")
    place.firewall(position=store.noted, generation=7)
    found = wait_in_force(place.host, store, at_most=0.05)
    assert (found.generation, found.where, found.runs) == (7, ("kernel",), True)
    assert found.seconds is not None
    place.firewall(position=0)
    found = wait_in_force(place.host, store, at_most=0.05)
    assert (found.seconds, found.runs) == (None, True)
    for gone in ({"pid": _DEAD}, {"at": place.clock.now() - 31}):
        place.firewall(position=0, **gone)
        assert place.host.firewall() is None
        found = wait_in_force(place.host, store, at_most=600)
        assert (found.seconds, found.where, found.runs) == (None, (), True)
        assert "the kernel keeps what it held" in found.why_not


def test_kernel_needs_no_sync_process(place: _Place) -> None:
    """The client goes by the store where nobody syncs; that Kamailio lags is said all the same."""
    place.kamailio(os.getpid())
    store = place.host.store_to_write()
    _ban(store, "192.0.2.1")
    place.firewall(position=store.noted)
    found = wait_in_force(place.host, store, at_most=600)
    assert (found.seconds, found.where) == (None, ("kernel",))
    assert "the kernel has it; no sync process runs" in found.why_not


def test_operators_mode_is_over_when_the_settings_changed_and_nothing_runs(place: _Place) -> None:
    """The next start ends it; while a sync runs that is for the sync to say."""
    store = place.host.store_to_write()
    store.set_mode(Mode.OFF, now=place.clock.now(), over=Mode.ENFORCE)
    assert place.host.mode() is Mode.SHADOW
    place.report(pid=os.getpid())
    assert place.host.mode() is Mode.OFF
