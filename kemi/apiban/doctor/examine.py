"""One look at the whole node: what the checks need is gathered once, and each is asked."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Final

from apiban.address import Family
from apiban.alive import is_alive
from apiban.clock import Clock
from apiban.doctor import feed, firewall, folders, hook, kamailio, process, store, sync
from apiban.doctor import settings as settings_checks
from apiban.doctor.finding import Finding, fail, note
from apiban.doctor.process import User
from apiban.errors import BoardError, SnapshotError
from apiban.firewall import tool
from apiban.firewall.report import FirewallReport
from apiban.firewall.running import last_report, runs
from apiban.gate.board import Board
from apiban.settings import Settings
from apiban.snapshot import load_snapshot
from apiban.snapshot.publish import durable_path
from apiban.store import overriding_mode
from apiban.sync.report import read_report, report_path

__all__ = ["examine"]

_COMMAND_WITHIN: Final = 5.0
_AS_ROOT: Final = "run it as root"


def examine(path: Path, settings: Settings, *, clock: Clock) -> Iterator[Finding]:
    """Do every check on the node of these settings, which come from ``path``."""
    return _Visit(path, settings, clock).checks()


class _Visit:
    def __init__(self, path: Path, settings: Settings, clock: Clock) -> None:
        self._path = path
        self._settings = settings
        self._store = settings.paths.state / "store.db"
        self._now = clock.now
        self._uptime = clock.uptime
        self._no_board = ""  # why there are no counters to look at, where there must be
        self._board = self._open_board()

    def checks(self) -> Iterator[Finding]:
        """Give the findings of each part; one that cannot be looked at does not end the others."""
        parts = (
            ("settings", self._of_settings),
            ("folders", self._of_folders),
            ("store", self._of_store),
            ("Kamailio", self._of_kamailio),
            ("sync", self._of_sync),
            ("hook", self._of_hook),
            ("firewall", self._of_firewall),
            ("feed", self._of_feed),
        )
        for name, part in parts:
            try:
                yield from part()
            except OSError as error:
                what = f"{error.filename or 'it'} cannot be looked at: {error.strerror or error}"
                yield note(name, what, _AS_ROOT)

    # What there is -----------------------------------------------------------------------------

    def _open_board(self) -> Board | None:
        """Give the counters of a running Kamailio."""
        path = self._settings.paths.runtime / "counters"
        try:
            if not path.exists():
                return None
            board = Board.open(path)
        except BoardError as error:
            self._no_board = str(error)
            return None
        except OSError as error:
            self._no_board = f"{path}: {error.strerror}"
            return None
        return board if any(is_alive(slot.pid) for slot in board.slots()) else None

    @cached_property
    def _workers(self) -> tuple[int, ...]:
        slots = self._board.slots() if self._board is not None else []
        return tuple(slot.pid for slot in slots if slot.rank > 0 and is_alive(slot.pid))

    @cached_property
    def _main(self) -> int | None:
        return process.parent(self._workers[0]) if self._workers else None

    @cached_property
    def _user(self) -> User | None:
        """Who Kamailio is: of a running one that is known, else it is who owns the state folder."""
        if self._workers:
            return User.of_process(self._workers[0])
        with contextlib.suppress(OSError):
            status = self._settings.paths.state.stat()
            return User(status.st_uid, frozenset({status.st_gid}))
        return None

    @cached_property
    def _firewall(self) -> FirewallReport | None:
        return last_report(self._settings.paths.runtime, self._now())

    # The parts ---------------------------------------------------------------------------------

    def _of_settings(self) -> Iterator[Finding]:
        yield from settings_checks.check_settings(self._path, self._settings)
        override = overriding_mode(self._store, self._now(), self._settings.mode)
        yield settings_checks.check_mode(self._settings, override)
        yield settings_checks.check_key(self._settings)
        files = (self._path, self._settings.feed.key_file)
        if self._user is not None:
            there = [one for one in files if one is not None and one.exists()]
            yield from settings_checks.check_readable(there, self._user)

    def _of_folders(self) -> Iterator[Finding]:
        paths = self._settings.paths
        size = self._store.stat().st_size if self._store.exists() else 0
        for name, path in (("state", paths.state), ("runtime", paths.runtime)):
            yield folders.check_folder(name, path, self._user)
            if path.is_dir():
                yield folders.check_room(path, folders.free_bytes(path), list_size=size)

    def _of_store(self) -> Iterator[Finding]:
        yield from store.check_store(self._store, now=self._now())
        path = durable_path(self._settings.paths.state)
        yield store.check_list(path, now=self._now(), lasts=self._settings.feed.ban_for)

    def _of_kamailio(self) -> Iterator[Finding]:
        board, report = self._board, self._firewall
        if board is None:
            if self._no_board:
                yield fail("Kamailio", self._no_board, "be root, or a member of the folder's group")
            elif report is not None and report.sources == "all" and runs(report, self._now()):
                yield kamailio.check_absence(report)
                return
            elif self._syncs_alone():
                yield kamailio.check_list_alone()
                return
            else:
                yield from kamailio.check_running(None, 0, faults=0)
        else:
            faults = board.total().faults
            yield from kamailio.check_running(board.started, len(self._workers), faults=faults)
        yield kamailio.check_version(_said("kamailio", "-v"))
        loaded = process.loaded_modules(self._workers[0]) if self._workers else None
        modules = kamailio.installed_modules() if loaded is None else loaded
        yield from kamailio.check_modules(modules.__contains__, loaded=loaded is not None)
        if self._main is not None:
            yield kamailio.check_allocator(process.command_line(self._main))
            yield kamailio.check_unit(_restart(self._main))

    def _syncs_alone(self) -> bool:
        """Tell whether ``apiban sync --forever`` runs, and no Kamailio has since the boot."""
        runtime = self._settings.paths.runtime
        report = read_report(report_path(runtime))
        if report is None or not is_alive(report.pid) or (runtime / "counters").exists():
            return False
        return "--forever" in process.command_line(report.pid)

    def _of_sync(self) -> Iterator[Finding]:
        running = self._board is not None
        lock = self._settings.paths.state / "sync.lock"
        holder = None
        if lock.exists():
            table = Path("/proc/locks").read_text(encoding="ascii")
            holder = process.lock_holder(lock.stat(), table)
        command = process.command_line(holder) if holder else []
        yield sync.check_lock(holder, command, running=running)
        report = read_report(report_path(self._settings.paths.runtime))
        beaten = None if self._board is None else self._board.beaten
        yield from sync.check_report(
            report,
            alive=report is not None and is_alive(report.pid),
            running=running,
            now=self._now(),
            silence=None if beaten is None else self._uptime() - beaten,
        )

    def _of_hook(self) -> Iterator[Finding]:
        board = self._board
        if board is None or not self._workers:
            return
        if process.same_network(self._workers[0]) is False:
            yield note("hook", "Kamailio has a network of its own", "run this in its container")
            return
        listeners = self._listeners()
        if listeners is None:
            yield note("hook", "which sockets are Kamailio's is not ours to see", _AS_ROOT)
            return
        before, generation = board.slots(), board.generation
        yield hook.check_hook(listeners, counted=lambda: _judged(board))
        yield hook.check_workers(before, board.slots(), generation=generation)

    def _listeners(self) -> list[hook.Listener] | None:
        """Find Kamailio's sockets, UDP first; None when they are not ours to see."""
        workers = hook.open_sockets(self._workers)
        every = hook.open_sockets(process.children(self._main) if self._main else ())
        if not workers or every is None:
            return None
        sockets: dict[hook.Transport, frozenset[int]] = {
            "udp": frozenset.intersection(*workers),
            "tcp": frozenset().union(*every),
        }
        found = []
        families: tuple[Family, ...] = (4, 6)
        for transport, inodes in sockets.items():
            for family in families:
                name = transport if family == 4 else f"{transport}6"
                table = Path(f"/proc/{self._workers[0]}/net/{name}")
                if table.exists():  # a host without IPv6 has no table of it
                    text = table.read_text(encoding="ascii")
                    found += hook.find_listeners(transport, family, text, inodes)
        return found

    def _of_firewall(self) -> Iterator[Finding]:
        report = self._firewall
        now, kamailio_runs = self._now(), self._board is not None
        running = report is not None and runs(report, now)
        yield from firewall.check_client(
            report,
            runs=running,
            alive=report is not None and is_alive(report.pid),
            kamailio=kamailio_runs,
            now=now,
        )
        if report is None:
            return
        if running:
            yield from firewall.check_held(report, self._listed(), now=now)
            yield from firewall.check_privileges(report, process.capabilities(report.pid))
        yield from firewall.check_tools(self._settings.firewall, tool.where)

    def _listed(self) -> firewall.Listed | None:
        """Give the published list, of which the durable file is a copy."""
        with contextlib.suppress(SnapshotError):
            list_ = load_snapshot(durable_path(self._settings.paths.state))
            if self._board is None or list_.generation == self._board.generation:
                return firewall.Listed(list_.generation, str(list_.mode), list_.created)
        return None

    def _of_feed(self) -> Iterator[Finding]:
        yield from feed.check_feed(self._settings.feed, now=self._now)


def _judged(board: Board) -> int:
    total = board.total()
    return total.dropped + total.would_drop + total.passed


def _restart(pid: int) -> str | None:
    """Give the Restart of the systemd unit that a process is in; None when it is in none."""
    if not Path("/run/systemd/system").is_dir():
        return None
    group = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").strip()
    unit = group.rpartition("/")[2]
    if not unit.endswith(".service"):
        return None
    return _said("systemctl", "show", unit, "-p", "Restart", "--value").strip() or None


def _said(*command: str) -> str:
    """Give what a command printed; nothing when there is no such command, or it is too slow."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_WITHIN, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
