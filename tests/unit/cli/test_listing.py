"""``apiban list``."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from apiban.address import Network
from apiban.snapshot.format import FOREVER
from apiban.store import DETECTOR, FEED_SOURCE, LOCAL, FeedState

from tests.unit.cli.node import NodeOnHost, networks

HOUR = 3600.0
ROOT = Path(__file__).parents[3]


@pytest.fixture
def filled(node: NodeOnHost) -> NodeOnHost:
    """Give a node with a few entries of each source."""
    node.feed_lists("198.51.100.7", "203.0.113.0/24", "2001:db8::7")
    now = node.clock.now()
    node.store.ban(
        networks(["198.51.100.0/24"]), source=LOCAL, reason="farm", expires=float(FOREVER), now=now
    )
    node.store.ban(
        networks(["192.0.2.77"]),
        source=DETECTOR,
        reason="10 failures\x1b[2J",
        expires=now + HOUR / 2,
        now=now,
    )
    node.clock.tick(60)
    return node


def listed(node: NodeOnHost, *options: str) -> list[tuple[str, str]]:
    """Give (network, source) of what is listed with these options."""
    done = node.run("list", "--json", *options)
    assert done.status == 0
    return [(one["network"], one["source"]) for one in done.json]


def test_it_lists_every_entry_in_the_order_of_addresses(filled: NodeOnHost) -> None:
    """IPv4 first; a network in another one is an entry of its own."""
    assert listed(filled) == [
        ("192.0.2.77", DETECTOR),
        ("198.51.100.0/24", LOCAL),
        ("198.51.100.7", FEED_SOURCE),
        ("203.0.113.0/24", FEED_SOURCE),
        ("2001:db8::7", FEED_SOURCE),
    ]


@pytest.mark.parametrize(
    ("options", "networks_shown"),
    [
        (("--source", "local"), ["198.51.100.0/24"]),
        (("--source", "nobody"), []),
        (("--family", "6"), ["2001:db8::7"]),
        (("--within", "198.51.100.0/25"), ["198.51.100.0/24", "198.51.100.7"]),
        (("--within", "203.0.113.9"), ["203.0.113.0/24"]),
        (("--reason", "fail"), ["192.0.2.77"]),
        (("--expires-within", "1h"), ["192.0.2.77"]),
        (("--limit", "2"), ["192.0.2.77", "198.51.100.0/24"]),
        (("--source", "apiban", "--family", "4", "--limit", "1"), ["198.51.100.7"]),
    ],
)
def test_filters(filled: NodeOnHost, options: tuple[str, ...], networks_shown: list[str]) -> None:
    """Each shows what it says, together they show what fits all."""
    assert [network for network, _ in listed(filled, *options)] == networks_shown


def test_json_has_times_in_seconds_and_null_for_good(filled: NodeOnHost) -> None:
    """Under stable names."""
    (entry,) = filled.run("list", "--json", "--source", "local").json
    listed_at = filled.clock.now() - 60
    assert entry == {
        "network": "198.51.100.0/24",
        "source": "local",
        "reason": "farm",
        "first_listed": listed_at,
        "last_listed": listed_at,
        "expires": None,
    }


def test_csv_has_a_head_and_a_row_an_entry(filled: NodeOnHost) -> None:
    """The end of a ban for good is empty."""
    rows = list(csv.DictReader(io.StringIO(filled.run("list", "--csv").out)))
    assert len(rows) == 5
    assert rows[1]["network"] == "198.51.100.0/24"
    assert rows[1]["expires"] == ""
    assert rows[0]["reason"] == "10 failures\\x1b[2J"


def test_people_get_a_line_an_entry(filled: NodeOnHost) -> None:
    """With relative times, and nothing that a terminal would obey."""
    lines = filled.run("list").out.splitlines()
    assert lines[0].split() == ["network", "source", "last", "listed", "expires", "reason"]
    assert lines[1].split("  ")[-1].strip() == "10 failures\\x1b[2J"
    assert "in 29 min" in lines[1]
    assert "for good" in lines[2]
    assert len(lines) == 6


def test_what_is_over_its_time_is_told_to_be_due(filled: NodeOnHost) -> None:
    """The feed's entries stay until it answers."""
    filled.clock.tick(7 * 86400 + HOUR)
    (line,) = filled.run("list", "--within", "198.51.100.7", "--source", "apiban").out.splitlines()[
        1:
    ]
    assert "due 61 min ago" in line


def test_a_limit_says_how_many_there_are_more(filled: NodeOnHost) -> None:
    """Beside the entries, on the standard error; 0 is no limit."""
    assert "... and 3 more" in filled.run("list", "--limit", "2").err
    assert "... and 2 more" in filled.run("list", "--limit", "1", "--source", "apiban").err
    assert "... and 1 more" in filled.run("list", "--limit", "1", "--within", "198.51.100.7").err
    assert filled.run("list", "--limit", "5").err == ""
    done = filled.run("list", "--limit", "0")
    assert len(done.out.splitlines()) == 6
    assert done.err == ""


def test_on_a_terminal_a_hundred_are_shown(
    node: NodeOnHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line is longer than the terminal is wide."""
    now = node.clock.now()
    hosts = [Network(4, 0xC6330000 + number, 0xC6330000 + number) for number in range(150)]
    node.store.ban(hosts, source=LOCAL, reason="x" * 200, expires=now + HOUR, now=now)
    assert len(node.run("list").out.splitlines()) == 151
    monkeypatch.setattr("apiban.cli.show.terminal", lambda: True)
    monkeypatch.setattr("apiban.cli.listing.terminal", lambda: True)
    done = node.run("list")
    lines = done.out.splitlines()
    assert len(lines) == 101
    assert {len(line) for line in lines[1:]} == {100}
    assert "... and 50 more" in done.err


def test_an_empty_list_is_no_failure(node: NodeOnHost) -> None:
    """For machines it is an empty array."""
    assert node.run("list", "--json").json == []
    done = node.run("list")
    assert (done.status, done.out, done.err) == (0, "", "no entry\n")


def test_two_forms_at_once_are_refused(filled: NodeOnHost) -> None:
    """It is a misuse."""
    assert filled.run("list", "--json", "--csv").status == 2


def test_without_a_store_it_says_so(node: NodeOnHost) -> None:
    """In one line."""
    done = node.run("--state", str(node.runtime), "list")
    assert done.status == 1
    assert "there is no store yet" in done.err
    assert done.err.count("\n") == 1


def test_no_entry_is_lost_between_two_pages(
    filled: NodeOnHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one of two sources that list the same network."""
    now = filled.clock.now()
    filled.store.ban(
        networks(["198.51.100.7"]), source=LOCAL, reason="", expires=now + HOUR, now=now
    )
    whole = listed(filled)
    assert len(whole) == 6
    monkeypatch.setattr("apiban.cli.listing._PAGE", 1)
    assert listed(filled) == whole


def test_a_reader_that_has_gone_is_no_failure(filled: NodeOnHost) -> None:
    """Also when all there is to say fits into the buffer."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "apiban.cli", "list", "--csv"],
            env={**os.environ, "PYTHONPATH": str(ROOT / "kemi")},
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_long_list_streams(node: NodeOnHost, tmp_path: Path) -> None:
    """200,000 entries in bounded time and memory, complete, and a reader may leave early."""
    hosts = [Network(4, 0x0B000000 + number, 0x0B000000 + number) for number in range(200_000)]
    now = node.clock.now()
    node.store.record_page(
        FEED_SOURCE, hosts, listed=now, expires=now + 86400, state=FeedState("x")
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "kemi")}
    command = [sys.executable, "-c", _MEASURED, "list", "--json"]
    began = time.monotonic()
    with (tmp_path / "list.json").open("wb") as out:
        done = subprocess.run(
            command, env=environ, stdout=out, stderr=subprocess.PIPE, timeout=60, check=True
        )
    assert time.monotonic() - began < 30
    assert int(done.stderr) < 80_000  # kB; all entries at once are well over 100 MB
    entries = json.loads((tmp_path / "list.json").read_bytes())
    assert [one["network"] for one in entries] == [str(host) for host in hosts]
    with subprocess.Popen(
        [sys.executable, "-m", "apiban.cli", "list"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(100)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


_MEASURED = """
import re, sys
from pathlib import Path
from apiban.cli import main
try:
    main()
finally:  # the peak of this program alone: getrusage counts its parent in
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""
