"""``apiban firewall``, on a kernel in memory."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from apiban.cli import firewall as command
from apiban.cli.words import when
from apiban.firewall.choose import make_backend
from apiban.firewall.conntrack import Cut
from apiban.firewall.elements import Block
from apiban.firewall.lock import alone
from apiban.firewall.report import read_report, report_path
from apiban.log import Log
from apiban.snapshot.publish import durable_path

from tests.support.firewall import MemoryBackend, MemoryKernel
from tests.unit.cli.node import NodeOnHost


@pytest.fixture
def kernel(node: NodeOnHost, monkeypatch: pytest.MonkeyPatch) -> MemoryKernel:
    """Give the kernel that the node's commands work on; the host has no address of its own."""
    made = MemoryKernel(node.clock)

    def cut(blocks: Collection[Block], **_: object) -> Cut:
        return Cut(len(blocks))

    backends = {"nftables": lambda: MemoryBackend(made)}
    monkeypatch.setattr(command, "make_backend", lambda *_, **__: MemoryBackend(made))
    monkeypatch.setattr(command, "BACKENDS", backends)
    monkeypatch.setattr(command, "own_addresses", lambda: node.own)
    monkeypatch.setattr(command, "cut", cut)
    return made


def running(
    monkeypatch: pytest.MonkeyPatch, within: Callable[[], None] = lambda: None, ticks: int = 3
) -> None:
    """Let ``run`` take so many ticks; ``within`` is done after the second."""

    def run_service(tick: Callable[[], None], **_: Any) -> None:
        for number in range(ticks):
            tick()
            if number == 1:
                within()

    monkeypatch.setattr(command, "run_service", run_service)


def test_plan_and_once(node: NodeOnHost, kernel: MemoryKernel) -> None:
    """A plan says what is to be done and does nothing; once does it, and then nothing is left."""
    node.feed_lists("198.51.100.7", "2001:db8::7")
    planned = node.run("firewall", "plan")
    assert planned.status == 0
    assert "to drop at input" in planned.out
    assert "add 2 blocks:\n  198.51.100.7 until 2027" in planned.out
    assert "allow 1 block:\n  192.0.2.10\n" in planned.out
    assert kernel.rules is None
    done = node.run("firewall", "once")
    assert (done.status, done.err) == (0, "")
    assert done.out == "2 added, 1 allowed; 2 blocks in the kernel\n"
    assert len(kernel.alive()) == 2
    assert node.run("firewall", "plan").out == "nothing to change\n"
    assert node.run("firewall", "once").out == "nothing to change; 2 blocks in the kernel\n"


def test_a_long_plan(node: NodeOnHost, kernel: MemoryKernel) -> None:
    """Twenty blocks are shown; JSON has them all, and a script is the backend's."""
    node.feed_lists(*(f"198.51.100.{number}" for number in range(1, 60, 2)))
    out = node.run("firewall", "plan").out
    assert out.count("  198.51.100.") == 20
    assert "and 10 more (--json has all)" in out
    document = node.run("firewall", "plan", "--json").json
    assert len(document["add"]) == 30
    assert document["allow"] == ["192.0.2.10"]
    assert document["rebuild"] is True
    assert node.run("firewall", "plan", "--script").out.startswith("rebuild True ('input',)")
    assert node.run("firewall", "plan", "--script", "--json").status == 2
    assert kernel.generation == 0


def test_once_for_machines(node: NodeOnHost, kernel: MemoryKernel) -> None:
    """The numbers of what was done."""
    node.feed_lists("198.51.100.7")
    document = node.run("firewall", "once", "--json").json
    assert (document["added"], document["removed"], document["banned_ipv4"]) == (1, 0, 1)
    assert kernel.rules is not None


def test_no_list(node: NodeOnHost, kernel: MemoryKernel) -> None:
    """There is nothing to go by: one line, and the kernel is as it was."""
    node.store.close()
    for path in node.state.glob("store.db*"):
        path.unlink()
    done = node.run("firewall", "once")
    assert done.status == 1
    (line,) = done.err.splitlines()
    assert line.startswith("apiban: there is no list yet: ")
    assert kernel.generation == 0


def test_a_list_that_cannot_be_read(node: NodeOnHost, kernel: MemoryKernel) -> None:
    """That is said as such."""
    node.store.close()
    for path in node.state.glob("store.db*"):
        path.unlink()
    durable_path(node.state).write_bytes(b"no list")
    done = node.run("firewall", "once")
    assert done.status == 1
    (line,) = done.err.splitlines()
    assert line.startswith("apiban: no list can be read: ")
    assert kernel.generation == 0


@pytest.mark.usefixtures("kernel")
def test_a_dry_run_for_machines(node: NodeOnHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """One document; what would be done is said beside it. To people it is the output."""
    monkeypatch.setattr(command, "make_backend", make_backend)
    monkeypatch.setenv("APIBAN_FIREWALL_BACKEND", "dry-run")
    node.feed_lists("198.51.100.7")
    done = node.run("firewall", "once", "--json")
    assert (done.status, done.json["added"]) == (0, 1)
    assert "would ban 198.51.100.7" in done.err
    done = node.run("firewall", "once")
    assert (done.status, done.err) == (0, "")
    assert "would ban 198.51.100.7" in done.out
    assert "1 block would be in the kernel: a dry run changes nothing" in done.out


def test_status_tells_which_packets_meet_the_rules(
    node: NodeOnHost, kernel: MemoryKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that an interface is not there, of which nothing is dropped then."""
    monkeypatch.setenv("APIBAN_FIREWALL_INTERFACES", "lo nosuch0")
    monkeypatch.setenv("APIBAN_FIREWALL_PORTS", "udp/5060")
    out = node.run("firewall", "status").out
    assert "at input: udp/5060, by lo, nosuch0; what is established is dropped too" in out
    assert "there is no interface nosuch0" in out
    assert "no interface lo" not in out
    assert node.run("firewall", "status", "--json").json["rules"] == {
        "hooks": ["input"],
        "ports": ["udp/5060"],
        "interfaces": ["lo", "nosuch0"],
        "established": "drop",
    }
    node.firewall_reports()
    codes = [one["code"] for one in node.run("status", "--json", "--no-wait").json["warnings"]]
    assert "firewall-interface" in codes
    assert kernel.rules is None


def test_one_reason_is_said_once(node: NodeOnHost, kernel: MemoryKernel) -> None:
    """A store and a list that are both damaged give one line."""
    node.store.close()
    for path in node.state.glob("store.db*"):
        path.unlink()
    (node.state / "store.db").write_bytes(b"no database" * 100)
    durable_path(node.state).write_bytes(b"no list")
    done = node.run("firewall", "once")
    assert done.status == 1
    (line,) = done.err.splitlines()
    assert line.startswith("apiban: no list can be read: ")
    assert kernel.generation == 0


def test_only_one_client(node: NodeOnHost, kernel: MemoryKernel) -> None:
    """``once`` and ``run`` name the process that is there."""
    with alone(node.runtime):
        for verb in ("once", "run"):
            done = node.run("firewall", verb)
            assert done.status == 1
            assert f"another firewall client runs here, process {os.getpid()}" in done.err
    assert kernel.generation == 0


def test_flush(node: NodeOnHost, kernel: MemoryKernel) -> None:
    """All goes; while a client runs only by force, since that one puts it back."""
    node.feed_lists("198.51.100.7")
    node.run("firewall", "once")
    with alone(node.runtime):
        refused = node.run("firewall", "flush")
        assert refused.status == 1
        assert "would put it back" in refused.err
        assert kernel.rules is not None
        forced = node.run("firewall", "flush", "--force")
        assert forced.out == (
            "nothing of ours is in the kernel; the client puts it back within 10 s\n"
        )
        assert kernel.rules is None
    node.run("firewall", "once")
    assert node.run("firewall", "flush").out == "nothing of ours is in the kernel\n"
    assert kernel.rules is None


def test_nothing_is_held_after_a_flush(node: NodeOnHost, kernel: MemoryKernel) -> None:
    """A client that died left a report; with what it held gone, nobody is told of it any more."""
    node.firewall_reports(pid=2**22 + 1, banned_ipv4=1)
    assert "firewall client runs no more" in node.run("ban", "198.51.100.7").err
    with alone(node.runtime):
        node.run("firewall", "flush", "--force")
        assert report_path(node.runtime).exists()  # it is of who runs
    assert node.run("firewall", "flush").status == 0
    assert not report_path(node.runtime).exists()
    assert "firewall client runs no more" not in node.run("unban", "198.51.100.7").err
    assert node.run("status", "--json", "--no-wait").json["firewall"] is None
    assert kernel.rules is None


def test_a_report_that_cannot_be_taken_away(
    node: NodeOnHost, kernel: MemoryKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, when all is out of the kernel."""
    node.feed_lists("198.51.100.7")
    node.run("firewall", "once")

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(command, "remove_report", refuse)
    done = node.run("firewall", "flush")
    assert done.status == 1
    assert "Permission denied" in done.err
    assert kernel.rules is None


def test_run(node: NodeOnHost, kernel: MemoryKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that it starts, is ready and ends; SIGHUP has it read the settings at once."""
    node.feed_lists("198.51.100.7")

    def reload() -> None:
        node.write_settings('firewall.on_exit = "remove"')
        os.kill(os.getpid(), signal.SIGHUP)

    old = signal.getsignal(signal.SIGHUP)
    running(monkeypatch, reload)
    try:
        done = node.run("firewall", "run")
    finally:
        signal.signal(signal.SIGHUP, old)
    assert done.status == 0
    events = [line.split()[1] for line in done.out.splitlines()]
    assert events[0] == "event=firewall-start"
    assert events[-1] == "event=firewall-stop"
    assert "event=firewall state=ready mode=enforce ipv4=1 ipv6=0" in done.out
    assert done.out.splitlines()[-1].endswith("rules=removed")
    assert kernel.rules is None


def test_reload_amid_the_start(
    node: NodeOnHost, kernel: MemoryKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGHUP that comes before there is a client does not end the process."""
    node.feed_lists("198.51.100.7")
    make = command.make_journal

    def hung_up() -> Log:
        assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL  # it would end the test
        os.kill(os.getpid(), signal.SIGHUP)
        return make()

    monkeypatch.setattr(command, "make_journal", hung_up)
    old = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    running(monkeypatch)
    try:
        done = node.run("firewall", "run")
    finally:
        signal.signal(signal.SIGHUP, old)
    assert done.status == 0
    assert kernel.rules is not None


def test_a_client_that_was_stopped(
    node: NodeOnHost, kernel: MemoryKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told as what it is; once brings the kernel up to date, and knows a later end."""
    node.feed_lists("198.51.100.7", "198.51.100.8")
    running(monkeypatch)
    node.run("firewall", "run")
    shown = node.run("firewall", "status")
    assert f"stopped at {when(node.clock.now())} UTC; what is in the kernel runs" in shown.out
    assert node.run("firewall", "status", "--json").json["stopped"] is True
    done = node.run("unban", "198.51.100.7")
    assert done.status == 4
    assert "the firewall client was stopped, and the kernel keeps" in done.err
    assert "apiban firewall once brings it up to date" in done.err
    before = read_report(report_path(node.runtime))
    assert before is not None
    assert before.banned_ipv4 == len(kernel.alive()) == 2
    node.clock.tick(60)
    assert node.run("firewall", "once").status == 0
    after = read_report(report_path(node.runtime))
    assert after is not None
    assert (after.stopped, after.banned_ipv4, len(kernel.alive())) == (True, 1, 1)


def test_status_of_a_client(
    node: NodeOnHost, kernel: MemoryKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what the client says; the kernel is not asked, so that no privilege is needed."""
    node.feed_lists("198.51.100.7", "2001:db8::7")
    found: list[Any] = []

    def within() -> None:
        kernel.drops("ipv4", 1)
        monkeypatch.setattr(MemoryBackend, "read", functools.partial(pytest.fail, "asked"))
        found.append(node.run("firewall", "status"))
        found.append(node.run("firewall", "status", "--json").json)

    running(monkeypatch, within)
    node.run("firewall", "run")
    shown, document = found
    assert f"runs, process {os.getpid()}, started now" in shown.out
    assert shown.out.count("1 IPv4 block, 1 IPv6 block") == 2
    assert document["runs"] is True
    assert document["held"] == document["wanted"] == {"ipv4": 1, "ipv6": 1}
    assert document["trouble"] == ""


def test_status_where_none_runs(node: NodeOnHost, kernel: MemoryKernel) -> None:
    """Who may ask the kernel sees that it holds less than it should."""
    node.feed_lists("198.51.100.7", "198.51.100.9")
    node.run("firewall", "once")
    kernel.banned.popitem()
    shown = node.run("firewall", "status").out
    assert "none runs: what is in the kernel stays until its bans run out" in shown
    assert "! the kernel holds 1 of the list's 2 blocks" in shown
    document = node.run("firewall", "status", "--json").json
    assert (document["runs"], document["pid"], document["packets"]) == (False, None, None)
    assert document["held"] == {"ipv4": 1, "ipv6": 0}
    kernel.flush()
    assert node.run("firewall", "status", "--json").json["held"] == {"ipv4": 0, "ipv6": 0}


def test_status_of_who_may_not_ask(
    node: NodeOnHost, kernel: MemoryKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel holds is not known then: that is no trouble, but to root."""
    node.feed_lists("198.51.100.7")
    monkeypatch.setattr(
        command,
        "make_backend",
        lambda *_, **__: (
            setattr(made := MemoryBackend(kernel), "broken", "no CAP_NET_ADMIN") or made
        ),
    )
    monkeypatch.setattr("apiban.cli.firewall_state.os.geteuid", lambda: 1000)
    shown = node.run("firewall", "status")
    assert shown.status == 0
    assert "not known: ask as root" in shown.out
    assert "CAP_NET_ADMIN" not in shown.out
    monkeypatch.setattr("apiban.cli.firewall_state.os.geteuid", lambda: 0)
    assert "! no CAP_NET_ADMIN" in node.run("firewall", "status").out
    for verb in ("once", "plan", "run", "flush"):
        done = node.run("firewall", verb)
        assert done.status == 1
        assert done.err.splitlines()[-1] == "apiban: no CAP_NET_ADMIN"
    assert not Path(report_path(node.runtime)).exists()
