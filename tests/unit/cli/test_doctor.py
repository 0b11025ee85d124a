"""``apiban doctor``: the whole look, at nodes in all states."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from apiban.gate.board import PASSED, Board
from apiban.settings import Mode

from tests.unit.cli.node import Done, NodeOnHost

# A port where nobody listens: nothing leaves this host.
NO_FEED = 'url = "http://127.0.0.1:1/"'


def levels(done: Done) -> dict[str, list[str]]:
    """Give the levels of each check."""
    found: dict[str, list[str]] = {}
    for one in done.json["findings"]:
        found.setdefault(one["check"], []).append(one["level"])
    return found


@contextmanager
def worker_that_counts(node: NodeOnHost, *, hook: bool) -> Iterator[None]:
    """Take SIP at loopback in this process; with the hook on, the board counts a message."""
    board = node.kamailio_starts(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        ended = threading.Event()
        one.settimeout(0.05)

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    one.recv(4096)
                    if hook:
                        board.words[board.slot_at(1) + PASSED] += 1

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def test_node_without_a_kamailio(node: NodeOnHost) -> None:
    """What is there is looked at; what is not there fails."""
    node.write_settings(feed=NO_FEED)
    for folder in (node.state, node.runtime):
        folder.chmod(0o2770)
    done = node.run("doctor", "--json")
    assert done.status == 1
    assert done.json["healthy"] is False
    said = levels(done)
    assert said["state folder"] == said["runtime folder"] == said["key"] == ["ok"]
    assert said["store"] == ["ok"]
    assert said["list"] == ["warn"]
    assert said["Kamailio"] == said["feed"] == ["fail"]
    assert "hook" not in said


def test_host_that_has_the_kernel_alone(node: NodeOnHost) -> None:
    """A sync process and the firewall client are all that it needs: Kamailio is not missed."""
    node.write_settings(feed=NO_FEED)
    node.sync_reports()
    node.firewall_reports()
    said = levels(node.run("doctor", "--json"))
    assert said["Kamailio"] == ["note"]
    assert not {"modules", "version"} & said.keys()
    for lack in ({"sources": "flooding"}, {"at": node.clock.now() - 60}):
        node.firewall_reports(**lack)
        assert levels(node.run("doctor", "--json"))["Kamailio"] == ["fail"]


def test_host_that_has_a_list_alone(node: NodeOnHost) -> None:
    """It makes the list for another firewall: Kamailio is not missed, unless one ran here."""
    node.write_settings(feed=NO_FEED)
    words = ["-c", "import time; print(flush=True); time.sleep(60)", "sync", "--forever"]
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE) as syncer:
        try:
            assert syncer.stdout is not None
            syncer.stdout.readline()  # it has its words from now on
            node.sync_reports(pid=syncer.pid)
            said = levels(node.run("doctor", "--json"))
            assert said["Kamailio"] == ["note"]
            assert not {"modules", "version"} & said.keys()
            Board.create(node.runtime / "counters", now=node.clock.now())
            assert levels(node.run("doctor", "--json"))["Kamailio"] == ["fail"]
        finally:
            syncer.kill()


def test_running_node(node: NodeOnHost) -> None:
    """The message that it sends is judged: the hook is on, and the worker is in step."""
    node.write_settings(feed=NO_FEED)
    with worker_that_counts(node, hook=True):
        node.publish()
        node.worker(1)
        node.sync_reports()
        done = node.run("doctor", "--json")
    said = levels(done)
    assert said["hook"] == said["workers"] == said["sync"] == said["list"] == ["ok"]
    assert said["Kamailio"] == ["ok"]
    assert said["sync.lock"] == ["fail"]  # nobody has it: this is no sync process


def test_node_with_the_hook_off(node: NodeOnHost) -> None:
    """A message that nobody judges: status 1, and the lines to add."""
    node.write_settings(feed=NO_FEED)
    with worker_that_counts(node, hook=False):
        done = node.run("doctor", "--json")
    (finding,) = [one for one in done.json["findings"] if one["check"] == "hook"]
    assert finding["level"] == "fail"
    assert "received_route_mode=1" in finding["mend"]
    assert done.status == 1


def test_mode_of_the_command_line(node: NodeOnHost) -> None:
    """A mode that the operator set and forgot is said."""
    node.write_settings(feed=NO_FEED)
    assert levels(node.run("doctor", "--json"))["mode"] == ["ok"]
    node.store.set_mode(Mode.SHADOW, now=node.clock.now())
    assert levels(node.run("doctor", "--json"))["mode"] == ["warn"]


def test_bad_settings(node: NodeOnHost) -> None:
    """Without settings there is nothing else to look at."""
    node.write_settings('mode = "on"', feed="interval = 0")
    done = node.run("doctor", "--json")
    assert done.status == 1
    assert levels(done) == {"settings": ["fail", "fail"]}


def test_counters_of_another_version(node: NodeOnHost) -> None:
    """A board that this version cannot read is said as such."""
    node.write_settings(feed=NO_FEED)
    (node.runtime / "counters").write_bytes(bytes(1 << 22))
    done = node.run("doctor", "--json")
    (finding,) = [one for one in done.json["findings"] if one["check"] == "Kamailio"]
    assert "another version" in finding["what"]


def test_lines(node: NodeOnHost) -> None:
    """A line a check, with the mend in it; what failed stands out."""
    node.write_settings(feed=NO_FEED)
    done = node.run("doctor")
    assert done.status == 1
    assert done.err == ""
    lines = done.out.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "note", "warn", "FAIL"}
    failed = [line for line in lines if line.startswith("FAIL")]
    assert failed
    assert all("; mend: " in line for line in failed)


def test_nothing_is_changed(node: NodeOnHost) -> None:
    """It looks, and touches no file."""
    node.write_settings(feed=NO_FEED)
    before = _state(node)
    node.run("doctor")
    assert _state(node) == before


def _state(node: NodeOnHost) -> dict[str, Any]:
    return {
        str(path): (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_mode)
        for path in node.folder.rglob("*")
        if not path.name.endswith("-shm")  # SQLite's own memory of who reads
    }


def test_pid_of_a_dead_kamailio(node: NodeOnHost) -> None:
    """Counters whose processes are gone are of no running Kamailio."""
    node.write_settings(feed=NO_FEED)
    board = node.kamailio_starts(1)
    gone = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(gone, 0)
    for rank in (0, 1):
        board.take_slot(rank, gone)
    assert levels(node.run("doctor", "--json"))["Kamailio"] == ["fail"]


def test_counters_that_are_closed_to_us(node: NodeOnHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other checks are done all the same."""
    node.kamailio_starts()
    node.write_settings(feed=NO_FEED)

    def refuse(path: Path) -> Board:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("apiban.doctor.examine.Board.open", refuse)
    done = node.run("doctor", "--json")
    (told,) = [one for one in done.json["findings"] if one["check"] == "Kamailio"]
    assert (told["level"], "Permission denied" in told["what"]) == ("fail", True)
    assert {"settings", "store", "version", "feed"} <= levels(done).keys()


def test_sync_process_that_hangs(node: NodeOnHost) -> None:
    """It is told by its word on the board."""
    node.write_settings(feed=NO_FEED)
    board = node.kamailio_starts(1)
    node.sync_reports()
    board.beat(node.clock.uptime())
    assert levels(node.run("doctor", "--json"))["sync"] == ["ok"]
    node.clock.tick(30)
    assert levels(node.run("doctor", "--json"))["sync"] == ["fail"]
