"""The queue keeps each sighting until it is settled, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from apiban.errors import QueueBusy, StoreError
from apiban.honeypot.queue import MOST_OF_NETWORK, Queue

from tests.unit.honeypot.parts import NOW, sighting, unproven

MANY = 1_000_000
KEMI = Path(__file__).resolve().parents[3] / "kemi"


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """Give an empty queue."""
    with Queue(tmp_path / "q.db") as opened:
        yield opened


def test_sighting_comes_out_as_it_went_in(queue: Queue) -> None:
    """With a number."""
    one = sighting(dialled="900123", users=("100", "bob"), tool=None)
    assert queue.add(one, max_rows=MANY)
    (got,) = queue.take(10)
    assert got.sequence == 1
    assert got == sighting(dialled="900123", users=("100", "bob"), tool=None, sequence=1)


def test_messages_of_one_kind_become_one_row(queue: Queue) -> None:
    """Count, users (20 at most) and time go on; the last user agent and number stay."""
    for n in range(30):
        queue.add(sighting(users=(str(n),), at=NOW + n, user_agent=f"a{n}"), max_rows=MANY)
    queue.add(sighting(users=("0",), at=NOW - 5, user_agent=None, dialled="1"), max_rows=MANY)
    (got,) = queue.take(10)
    assert (got.count, got.at, got.user_agent, got.dialled) == (31, NOW + 29, "a29", "1")
    assert got.users == tuple(str(n) for n in range(20))


@pytest.mark.parametrize(
    "other", [{"source": "192.0.2.2"}, {"transport": "tcp"}, {"method": "INVITE"}, {"tool": None}]
)
def test_each_kind_has_a_row(queue: Queue, other: dict[str, str]) -> None:
    """Source, transport, method and tool."""
    queue.add(sighting(), max_rows=MANY)
    queue.add(sighting(**other), max_rows=MANY)
    assert [one.count for one in queue.take(10)] == [1, 1]


def test_what_is_handed_out_takes_up_nothing(queue: Queue) -> None:
    """A later message has a row of its own, so that no count is lost."""
    queue.add(sighting(), max_rows=MANY)
    batch = queue.take(10)
    queue.add(sighting(), max_rows=MANY)
    assert queue.take(10) == batch
    queue.settle(batch)
    (later,) = queue.take(10)
    assert (later.sequence, later.count) == (2, 1)


def test_batch_is_the_same_after_a_crash(tmp_path: Path, queue: Queue) -> None:
    """Whatever came meanwhile, and whatever the new process asks for."""
    for n in range(5):
        queue.add(sighting(f"192.0.2.{n}"), max_rows=MANY)
    batch = queue.take(3)
    queue.add(sighting("192.0.2.0"), max_rows=MANY)
    with Queue(tmp_path / "q.db", durable=True) as again:
        assert again.take(1000) == batch
        again.settle(batch)
        assert [one.sequence for one in again.take(1000)] == [4, 5, 6]


def test_numbers_are_never_given_twice(tmp_path: Path, queue: Queue) -> None:
    """Not when the queue was empty in between, nor after a restart."""
    queue.add(sighting(), max_rows=MANY)
    queue.settle(queue.take(10))
    assert queue.rows() == 0
    with Queue(tmp_path / "q.db") as again:
        again.add(sighting(), max_rows=MANY)
        assert [one.sequence for one in again.take(10)] == [2]
        assert again.identity == queue.identity
    assert len(queue.identity) == 32


def test_halves_come_in_order(queue: Queue) -> None:
    """The later half waits for its turn, unchanged, ahead of what came after."""
    for n in range(8):
        queue.add(sighting(f"192.0.2.{n}"), max_rows=MANY)
    whole = queue.take(8)
    queue.halve(whole)
    quarter = queue.take(8)
    assert quarter == whole[:4]
    queue.halve(quarter)
    seen = []
    queue.add(sighting("192.0.2.0"), max_rows=MANY)
    while batch := queue.take(8):
        seen.append([one.sequence for one in batch])
        queue.settle(batch)
    assert seen == [[1, 2], [3, 4], [5, 6, 7, 8], [9]]


def test_settled_batch_takes_nothing_else_away(queue: Queue) -> None:
    """A second reporter that settles late removes what it reported alone."""
    queue.add(sighting(), max_rows=MANY)
    batch = queue.take(10)
    queue.settle(batch)
    queue.add(sighting(), max_rows=MANY)
    queue.settle(batch)
    assert queue.rows() == 1


def test_full_queue_takes_no_new_row(queue: Queue) -> None:
    """But a row that is there takes up more; and there is room again when some are settled."""
    assert queue.add(sighting("192.0.2.1"), max_rows=2)
    assert queue.add(sighting("192.0.2.2"), max_rows=2)
    assert not queue.add(sighting("192.0.2.3"), max_rows=2)
    assert queue.add(sighting("192.0.2.2"), max_rows=2)
    queue.settle(queue.take(1))
    assert queue.add(sighting("192.0.2.3"), max_rows=2)


@pytest.mark.parametrize(
    ("host", "neighbour", "stranger"),
    [
        ("2001:db8:0:1::{}", "2001:db8:0:1:ffff::1", "2001:db8:0:2::1"),
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
    ],
)
def test_one_network_keeps_no_others_out(
    queue: Queue, host: str, neighbour: str, stranger: str
) -> None:
    """One network of 64 bits, or one IPv4 address, has so many rows; the others have the rest."""
    for n in range(MOST_OF_NETWORK):
        assert queue.add(sighting(host.format(n + 1), method=f"M{n}"), max_rows=MANY)
    assert not queue.add(sighting(neighbour), max_rows=MANY)
    assert queue.add(sighting(host.format(1), method="M0"), max_rows=MANY)
    assert queue.add(sighting(stranger), max_rows=MANY)
    queue.settle(queue.take(1))
    assert queue.add(sighting(neighbour), max_rows=MANY)


def test_file_of_the_first_version_goes_on(tmp_path: Path) -> None:
    """Its rows count for their networks."""
    path = tmp_path / "old.db"
    with Queue(path) as made:
        for n in range(MOST_OF_NETWORK):
            made.add(sighting(f"2001:db8::{n + 1}"), max_rows=MANY)
        identity = made.identity
    with sqlite3.connect(path) as db:
        db.execute("DROP INDEX sighting_network")
        db.execute("ALTER TABLE sighting DROP COLUMN network")
        db.execute("PRAGMA user_version=1")
    db.close()
    with Queue(path) as opened:
        assert opened.identity == identity
        assert not opened.add(sighting("2001:db8::ffff"), max_rows=MANY)
        assert opened.add(sighting("2001:db8:1::1"), max_rows=MANY)
        assert len(opened.take(1000)) == MOST_OF_NETWORK + 1


def test_busy_file_is_an_error_of_its_own(tmp_path: Path, queue: Queue) -> None:
    """The same connection is good afterwards."""
    with Queue(tmp_path / "q.db", wait=0.01) as hasty:
        other = sqlite3.connect(tmp_path / "q.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(QueueBusy, match="locked"):
            hasty.add(sighting(), max_rows=MANY)
        other.execute("ROLLBACK")
        other.close()
        assert hasty.add(sighting(), max_rows=MANY)
    assert queue.rows() == 1


def test_long_log_is_cut(tmp_path: Path, queue: Queue) -> None:
    """When no reader holds it; a short one is left alone."""
    log = tmp_path / "q.db-wal"
    assert not queue.trim()
    reader = sqlite3.connect(tmp_path / "q.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM identity").fetchall()
    for n in range(3000):
        queue.note(unproven(f"10.1.{n >> 8}.{n & 255}"), keep=MANY)
    assert log.stat().st_size > 4 << 20
    assert not queue.trim()
    reader.execute("ROLLBACK")
    reader.close()
    assert queue.trim()
    assert log.stat().st_size == 0
    assert len(queue.unproven(MANY)) == 3000


def test_new_identity_keeps_what_the_feed_lacks(queue: Queue) -> None:
    """What it took goes; the rest stays handed out, with its numbers."""
    for n in range(4):
        queue.add(sighting(f"192.0.2.{n}"), max_rows=MANY)
    before, batch = queue.identity, queue.take(4)
    queue.renew(batch[3:])
    assert queue.identity != before
    assert queue.take(4) == batch[:3]


def test_unproven_sources_are_bounded(queue: Queue) -> None:
    """The oldest go, and how many messages went with them is told."""
    assert [queue.note(unproven(f"10.0.0.{n}", last=NOW + n), keep=3) for n in range(3)] == [0] * 3
    queue.note(unproven("10.0.0.0", last=NOW + 3), keep=3)
    queue.note(unproven("10.0.0.0", last=NOW + 1), keep=3)
    assert queue.note(unproven("10.0.0.9", last=NOW + 4), keep=3) == 1
    kept = {one.source: (one.count, one.last - NOW) for one in queue.unproven(10)}
    assert kept == {"10.0.0.2": (1, 2), "10.0.0.0": (3, 3), "10.0.0.9": (1, 4)}
    assert queue.take(10) == []


def test_reported_unproven_source_keeps_what_is_new(queue: Queue) -> None:
    """What came after the report stays; the rest goes."""
    queue.note(unproven("10.0.0.1"), keep=9)
    queue.note(unproven("10.0.0.2"), keep=9)
    reported = queue.unproven(10)
    queue.note(unproven("10.0.0.2", last=NOW + 5), keep=9)
    queue.settle([], reported)
    (left,) = queue.unproven(10)
    assert (left.source, left.count, left.first, left.last) == ("10.0.0.2", 1, NOW, NOW + 5)


_WRITER = """
import sys
from pathlib import Path
from apiban.honeypot.queue import MOST_OF_NETWORK, Queue
from apiban.honeypot.records import Sighting
with Queue(Path(sys.argv[1]), wait=30) as queue:
    for n in range(int(sys.argv[2])):
        one = Sighting(f"10.0.0.{n % 7}", "udp", "REGISTER", None, None, None, (), "nonce", n)
        assert queue.add(one, max_rows=10**6)
        print(n, flush=True)
"""


def writer(path: Path, messages: int) -> subprocess.Popen[bytes]:
    """Start a process that writes, and says each message that it has written."""
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), str(messages)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(KEMI)},
    )


def test_writers_and_reporter_at_once_lose_nothing(tmp_path: Path) -> None:
    """Two processes write while this one takes and settles: every message is counted once."""
    path = tmp_path / "q.db"
    total, sequences = 0, []
    with Queue(path, durable=True, wait=30) as queue:
        with writer(path, 1000) as one, writer(path, 1000) as two:
            while one.poll() is None or two.poll() is None:
                batch = queue.take(5)
                total += sum(row.count for row in batch)
                sequences += [row.sequence for row in batch]
                queue.settle(batch)
        while batch := queue.take(5):
            total += sum(row.count for row in batch)
            queue.settle(batch)
    assert (one.returncode, two.returncode, total) == (0, 0, 2000)
    assert sequences == sorted(set(sequences))


def test_killed_writer_loses_nothing_that_it_said(tmp_path: Path) -> None:
    """What ``add`` returned from is in the file."""
    path = tmp_path / "q.db"
    with writer(path, 100_000) as child:
        assert child.stdout is not None
        for _ in range(200):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        said = 200 + len(child.stdout.read().splitlines())
    with Queue(path) as queue:
        assert sum(row.count for row in queue.take(100)) in {said, said + 1}


def test_damage_is_one_kind_of_error(tmp_path: Path) -> None:
    """A file that is no database, or of a newer version, is said to be so."""
    path = tmp_path / "q.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="not a database"):
        Queue(path)
    newer = tmp_path / "n.db"
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version=9")
    db.close()
    with pytest.raises(StoreError, match="newer"):
        Queue(newer)
