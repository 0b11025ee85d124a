"""``apiban top``."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apiban.snapshot.origin import Origin

from tests.unit.cli.node import NodeOnHost

ROOT = Path(__file__).parents[3]
LISTED = ("198.51.100.7", "198.51.100.8", "2001:db8:1234:5678:9abc:def0:1234:5678")


@pytest.fixture
def running(node: NodeOnHost) -> NodeOnHost:
    """Give a node that runs, and met the sources of its list once."""
    node.feed_lists(*LISTED)
    node.kamailio_starts(workers=2)
    node.publish()
    node.worker(1)
    node.worker(2)
    node.sync_reports()
    node.worker(1, dropped=500)
    node.meets(LISTED[0], dropped=400)
    node.meets(LISTED[1], dropped=100, transport="tcp", line="REGISTER sip:x\x1b[2J SIP/2.0")
    return node


@pytest.fixture
def meanwhile(
    running: NodeOnHost, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], object]], None]:
    """Give a way to let something happen between two looks."""

    def set_up(happens: Callable[[], object]) -> None:
        def sleep(seconds: float) -> None:
            happens()
            running.clock.tick(seconds)

        monkeypatch.setattr("apiban.cli.top.time.sleep", sleep)

    return set_up


def flood(node: NodeOnHost) -> None:
    """Let more come from the second source and from a new one."""
    node.worker(1, dropped=1300, passed=20)
    node.meets(LISTED[1], dropped=300)
    node.meets(LISTED[2], dropped=500, transport="", line="", origin=Origin.LOCAL, exact=False)


def document(node: NodeOnHost, *options: str) -> dict[str, Any]:
    """Give one frame for machines."""
    done = node.run("top", "--json", *options)
    assert done.status == 0
    told = done.json
    assert isinstance(told, dict)
    return told


def test_json_tells_rates_and_sources(running: NodeOnHost, meanwhile: Callable[..., None]) -> None:
    """Who floods now comes first; the rates are those of the interval."""
    meanwhile(lambda: flood(running))
    told = document(running, "--interval", "2")
    assert told["seconds"] == 2
    assert told["dropped"] == 1300
    assert told["dropped_per_second"] == 400
    assert told["passed_per_second"] == 10
    assert [(one["source"], one["per_second"], one["dropped"]) for one in told["sources"]] == [
        (LISTED[2], 250, 500),
        (LISTED[1], 150, 400),
        (LISTED[0], 0, 400),
    ]
    new, again, _ = told["sources"]
    assert (new["exact"], new["origin"], new["transport"], new["line"]) == (
        False,
        "local",
        None,
        None,
    )
    assert (again["exact"], again["origin"], again["transport"]) == (True, "apiban", "tcp")
    assert told["transports"] == {
        "?": {"packets": 500, "per_second": 250},
        "udp": {"packets": 400, "per_second": 0},
        "tcp": {"packets": 400, "per_second": 150},
    }
    assert told["warnings"] == []


def test_one_frame_is_printed_where_there_is_no_terminal(
    running: NodeOnHost, meanwhile: Callable[..., None]
) -> None:
    """With nothing that a terminal would obey in it."""
    meanwhile(lambda: flood(running))
    done = running.run("top")
    assert done.status == 0
    assert "\x1b" not in done.out
    lines = done.out.splitlines()
    assert lines[0].startswith("apiban top  enforce  3 entries")
    rows = [line.split() for line in lines[-4:]]
    assert rows[0][:4] == ["source", "per", "s", "packets"]
    assert rows[1][:5] == [LISTED[2], "500", "~500", "?", "local"]
    assert rows[2][:5] == [LISTED[1], "300", "400", "tcp", "apiban"]
    assert "REGISTER sip:x\\x1b[2J SIP/2.0" in lines[-2]
    dropped = next(line for line in lines if line.startswith("dropped"))
    assert dropped.split()[:3] == ["dropped", "800/s", "1,300"]


def test_so_many_frames_draw_a_line_of_the_drops(
    running: NodeOnHost, meanwhile: Callable[..., None]
) -> None:
    """Each second a mark, the highest as high as can be."""
    counts = iter([500, 1500, 2000])
    meanwhile(lambda: running.worker(1, dropped=next(counts)))
    text = running.run("top", "--count", "3").out
    drops = [line for line in text.splitlines() if line.startswith("dropped")]
    assert [line.split()[-1] for line in drops] == ["▁", "▁█", "▁█▅"]


def test_the_rates_of_sources_are_smoothed(
    running: NodeOnHost, meanwhile: Callable[..., None]
) -> None:
    """Kamailio may add up what it dropped for a source twice in one second, and then not at all."""
    counts = iter([0, 0, 300, 0, 0, 0, 0])
    meanwhile(lambda: running.meets(LISTED[0], dropped=next(counts)))
    text = running.run("top", "--count", "7").out
    rows = [line.split() for line in text.splitlines() if line.startswith(LISTED[0])]
    assert [row[1] for row in rows] == ["0", "0", "100", "100", "100", "0", "0"]


def test_the_progress_of_a_pass_is_drawn(
    running: NodeOnHost, meanwhile: Callable[..., None]
) -> None:
    """Against the list's length, which is known after the first pass."""
    meanwhile(lambda: None)
    running.sync_reports(pass_started=running.clock.now(), pass_seen=500, entries=1000)
    assert "██████████░░░░░░░░░░  500 entries of about 1,000" in running.run("top", "--once").out
    running.save_feed(pass_ended=None)
    assert "500 entries so far" in running.run("top", "--once").out


def test_warnings_are_shown(running: NodeOnHost, meanwhile: Callable[..., None]) -> None:
    """The first, and how many more there are."""
    meanwhile(lambda: None)
    running.write_settings('mode = "off"')
    running.publish()
    running.sync_reports(feed="outage", error="x")
    text = running.run("top", "--once").out
    assert "WARNING (and 1 more): the mode is off" in text
    assert [one["code"] for one in document(running)["warnings"]] == ["mode", "feed"]


def test_a_change_of_the_settings_is_seen(
    running: NodeOnHost, meanwhile: Callable[..., None]
) -> None:
    """And a mistake in them does not end it."""

    def shadow() -> None:
        running.write_settings('mode = "shadow"')
        running.publish()

    happens = iter([shadow, lambda: running.write_settings("mode = 7"), running.clock.now])

    def one_more() -> None:
        next(happens)()
        running.clock.tick(5)

    meanwhile(one_more)
    done = running.run("top", "--count", "3")
    assert done.status == 0
    heads = [line for line in done.out.splitlines() if line.startswith("apiban top")]
    assert ["shadow" in head for head in heads] == [True, True, True]
    assert "not enforce" not in done.out


def test_without_kamailio_it_waits_for_one(
    node: NodeOnHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that starts is seen at the next frame, and its counts are no rate yet."""
    node.feed_lists(LISTED[0])
    node.sync_reports()
    frames: list[None] = []

    def sleep(seconds: float) -> None:
        frames.append(None)
        node.clock.tick(seconds)
        if len(frames) == 2:
            node.kamailio_starts(workers=2)
            node.publish()
            node.worker(1, dropped=500)
            node.meets(LISTED[0], dropped=500)

    monkeypatch.setattr("apiban.cli.top.time.sleep", sleep)
    text = node.run("top", "--count", "3").out
    assert text.count("no Kamailio runs") == 1
    dropped = [line.split()[:3] for line in text.splitlines() if line.startswith("dropped")]
    assert dropped[0] == ["dropped", "-/s", "500"]
    assert text.splitlines()[-1].split()[0] == LISTED[0]


def test_an_encoding_without_bars_gets_plain_marks(running: NodeOnHost) -> None:
    """No letter of the frame is beyond ASCII then."""
    done = subprocess.run(
        [sys.executable, "-m", "apiban.cli", "top", "--once", "--interval", "0.2"],
        env={**environ(), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.isascii()
    assert b"dropped" in done.stdout
    assert done.stderr == b""


# On a terminal -----------------------------------------------------------------------------------


class Terminal:
    """A terminal of 24 lines and 80 columns with ``apiban top`` in it."""

    def __init__(self, *options: str) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 80))
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self.shown = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "apiban.cli", "top", "--interval", "0.2", *options],
            env={**environ(), "TERM": "xterm"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )

    def read_until(self, text: bytes, within: float = 20.0) -> None:
        """Read what is drawn until a text is in it."""
        give_up = time.monotonic() + within
        while text not in self.shown:
            assert time.monotonic() < give_up, self.shown
            self._read(0.1)

    def end(self, within: float = 20.0) -> int:
        """Read to the end, and give the status."""
        give_up = time.monotonic() + within
        while self.process.poll() is None:
            assert time.monotonic() < give_up, self.shown
            self._read(0.05)
        self._read(0.05)
        return self.process.returncode

    def is_as_before(self) -> bool:
        """Tell whether the keyboard is as it was, and the screen the shell's."""
        left = self.shown.endswith(b"\x1b[?1049l\x1b[?25h") or self.shown.rfind(
            b"\x1b[?1049l"
        ) > self.shown.rfind(b"\x1b[?1049h")
        cursor = self.shown.rfind(b"\x1b[?25h") > self.shown.rfind(b"\x1b[?25l")
        return left and cursor and termios.tcgetattr(self._slave) == self.before

    def _read(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self.master, select.POLLIN)
        while poll.poll(seconds * 1000):
            self.shown += os.read(self.master, 65536)
            seconds = 0.0

    def close(self) -> None:
        """End it, whatever became of it."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self._slave)


def environ() -> dict[str, str]:
    """Give a command's environment, without the test's width."""
    return {
        **{name: text for name, text in os.environ.items() if name != "COLUMNS"},
        "PYTHONPATH": str(ROOT / "kemi"),
        "LC_ALL": "C.UTF-8",
    }


@pytest.fixture
def open_terminal(running: NodeOnHost) -> Iterator[Callable[..., Terminal]]:
    """Give a way to run it in a terminal."""
    opened: list[Terminal] = []

    def run(*options: str) -> Terminal:
        opened.append(Terminal(*options))
        return opened[-1]

    yield run
    for one in opened:
        one.close()


def test_q_ends_it(open_terminal: Callable[..., Terminal]) -> None:
    """With the terminal as it was; other keys do nothing."""
    terminal = open_terminal()
    terminal.read_until(b"198.51.100.7")
    os.write(terminal.master, b"x")
    seen = len(terminal.shown)
    terminal.read_until(b"apiban top")
    while terminal.shown.count(b"\x1b[H") < 3 and len(terminal.shown) < seen + 50_000:
        terminal._read(0.2)
    assert terminal.process.poll() is None
    os.write(terminal.master, b"q")
    assert terminal.end() == 0
    assert terminal.is_as_before()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_leaves_the_terminal_as_it_was(
    open_terminal: Callable[..., Terminal], number: int, status: int
) -> None:
    """Ctrl-C is an ordinary end; what another one ended says so."""
    terminal = open_terminal()
    terminal.read_until(b"198.51.100.7")
    terminal.process.send_signal(number)
    assert terminal.end() == status
    assert terminal.is_as_before()
    assert b"Traceback" not in terminal.shown


def test_so_many_frames_end_it(open_terminal: Callable[..., Terminal]) -> None:
    """Nothing is drawn beyond the terminal's size."""
    terminal = open_terminal("--count", "2")
    assert terminal.end() == 0
    assert terminal.is_as_before()
    drawn = terminal.shown.split(b"\x1b[?1049h")[1].split(b"\x1b[?1049l")[0]
    assert drawn.count(b"\n") <= 2 * 24
