"""Several processes over one store: real ones, since SQLite's locks are between processes."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from apiban.address import Network, parse_network
from apiban.errors import StoreError
from apiban.settings import Mode
from apiban.store import FEED_SOURCE, LOCAL, FeedState, Store
from apiban.store import file as module

NOW = 1_800_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name the store's file."""
    return tmp_path / "store.db"


def _run_at_once(code: str, *arguments: str, count: int) -> list[str]:
    """Run processes that all wait for one signal, and give the last line of each."""
    children = []
    with ExitStack() as stack:
        read, write = os.pipe()
        stack.callback(os.close, read)
        for number in range(count):
            command = [sys.executable, "-c", _READY + code, *arguments, str(number)]
            child = stack.enter_context(
                subprocess.Popen(
                    command, stdin=read, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                )
            )
            children.append(child)
        try:
            for child in children:
                assert child.stdout is not None
                assert child.stdout.readline() == b"ready\n"
        finally:
            os.close(write)  # they read its end, all in the same moment
        said = [child.communicate(timeout=60)[0].decode() for child in children]
    for child, text in zip(children, said, strict=True):
        assert child.returncode == 0, text
    return [text.strip().rpartition("\n")[2] for text in said]


_READY = """
import sys
from pathlib import Path
from apiban.address import Network
from apiban.store import FEED_SOURCE, LOCAL, FeedState, Store
path = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""


def test_new_store_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    """The tables are made once; nobody is turned away."""
    code = "Store(path).set_state(sys.argv[2], 'x', now=1)\n"
    for turn in range(3):
        path = tmp_path / f"{turn}.db"
        _run_at_once(code, str(path), count=4)
        with Store(path) as store:
            assert [store.state(str(number)) for number in range(4)] == ["x"] * 4


_WRITE = """
number = int(sys.argv[2])
with Store(path) as store:
    for turn in range(20):
        first = number << 16 | turn << 8
        own = [Network(4, n, n) for n in range(first, first + 50)]
        if number == 0:
            state = FeedState("x", cursor=str(turn))
            store.record_page(FEED_SOURCE, own, listed=turn, expires=1e10, state=state)
        else:
            store.ban(own, source=LOCAL, reason="", expires=1e10, now=turn)
            store.allow(own[:2], reason="", now=turn)
            store.unban(own[:10], sources=[LOCAL], now=turn)
    print(store.noted)
"""


def test_two_command_lines_and_the_sync_write_at_once(path: Path) -> None:
    """Nobody is locked out, nothing is lost, and the file is whole."""
    with Store(path):
        noted = _run_at_once(_WRITE, str(path), count=3)
        with Store(path) as store:
            assert store.count_by_source() == {FEED_SOURCE: 20 * 50, LOCAL: 2 * 20 * 40}
            assert len(store.allow_list()) == 2 * 20 * 2
            assert store.feed(FEED_SOURCE, "x").cursor == "19"
            assert max(map(int, noted)) == store.position() == 20 * 50 + 2 * 20 * (50 + 2 + 10)
            assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


_BAN_MANY = """
store = Store(path)
store.ban(
    [Network(4, number, number) for number in range(100_000)],
    source=LOCAL, reason="many", expires=1e10, now=1,
)
print("done", flush=True)
"""


@pytest.mark.parametrize("after", [0.05, 0.2, 0.4])
def test_killed_in_a_ban_of_many_leaves_all_or_nothing(path: Path, after: float) -> None:
    """The list, and what the journal says of it, are those before or those after."""
    with Store(path) as store:
        store.ban([parse_network("::1")], source=LOCAL, reason="", expires=1e10, now=1)
    command = [sys.executable, "-c", _READY + _BAN_MANY, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"ready\n"
            child.stdin.close()
            time.sleep(after)  # any moment is right
        finally:
            child.send_signal(signal.SIGKILL)
        done = b"done" in child.stdout.read()
    with Store(path) as store:
        count = store.count(LOCAL)
        assert count in ({100_001} if done else {1, 100_001})
        assert store.position() == count
        assert store.ban([parse_network("::2")], source=LOCAL, reason="", expires=1, now=1) == 1


_HOLD = """
store = Store(path)
with store._transaction():
    store._note(1.0, "x", "x", "x")
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_writer_that_stands_still_costs_an_error_and_no_reader(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command line that was suspended in its transaction: reading goes on all the same."""
    monkeypatch.setattr(module, "_BUSY_SECONDS", 0.1)
    with Store(path) as store:
        store.ban([parse_network("::1")], source=LOCAL, reason="", expires=1e10, now=1)
        code = _READY.replace("sys.stdin.read()\n", "") + _HOLD
        command = [sys.executable, "-c", code, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            try:
                assert child.stdout.readline() == b"ready\n"
                assert child.stdout.readline() == b"held\n"
                with pytest.raises(StoreError, match="locked"):
                    store.set_state("a", "b", now=1)
                assert store.count(LOCAL) == 1
                assert len(list(store.bans(6, grace_source="", grace=0))) == 1
                with Store(path) as other:  # opening takes no lock either
                    assert other.count(LOCAL) == 1
            finally:
                child.stdin.close()
                child.wait(timeout=30)
        store.set_state("a", "b", now=1)


# What others wrote -----------------------------------------------------------------------------


def test_change_of_another_connection_is_seen_once(path: Path) -> None:
    """Our own commits are none, nor is a connection that only looked."""
    with Store(path) as store, Store(path) as other:
        store.changed_outside()
        store.set_state("a", "b", now=NOW)
        assert not store.changed_outside()
        other.ban([parse_network("::1")], source=LOCAL, reason="", expires=1e10, now=NOW)
        assert store.changed_outside()
        assert not store.changed_outside()
        with Store(path) as reader:
            assert reader.count(LOCAL) == 1
            assert reader.find(parse_network("::1"))
        assert not store.changed_outside()


def test_change_of_another_before_our_own_commit_is_not_missed(path: Path) -> None:
    """Our transaction begins on top of it, and it still counts as not seen."""
    with Store(path) as store, Store(path) as other:
        store.changed_outside()
        other.set_state("a", "b", now=NOW)
        store.set_state("c", "d", now=NOW)
        assert store.changed_outside()
        assert not store.changed_outside()


def test_positions_grow_with_each_change_of_anybody(path: Path) -> None:
    """``position`` is the store's, ``noted`` what this object changed last."""
    with Store(path) as store, Store(path) as other:
        assert (store.position(), store.noted) == (0, 0)
        store.ban([parse_network("::1")], source=LOCAL, reason="", expires=1e10, now=NOW)
        other.allow([parse_network("::1")], reason="", now=NOW)
        assert store.position() == other.position() == other.noted == 2
        assert store.noted == 1
        assert store.unban([parse_network("::9")], sources=[LOCAL], now=NOW) == 0
        assert store.position() == 2


def test_position_is_not_taken_back_by_the_journals_bound(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest rows go, and the numbers go on."""
    monkeypatch.setattr(module, "_JOURNAL_ROWS", 10)
    with Store(path) as store:
        many = [Network(4, number, number) for number in range(2000)]
        store.record_page(FEED_SOURCE, many, listed=NOW, expires=NOW, state=FeedState("x"))
        assert store.position() == 2000
        assert len(store.journal(5000)) == 10


# Whose files they are --------------------------------------------------------------------------


@pytest.fixture
def _tight_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def _modes(folder: Path) -> dict[str, int]:
    return {one.name: stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()}


@pytest.mark.usefixtures("_tight_umask")
def test_group_may_write_all_of_the_stores_files(path: Path) -> None:
    """The log of writes and its index as well, from the first moment and whatever the umask."""
    with Store(path) as store:
        store.set_state("a", "b", now=NOW)
        assert _modes(path.parent) == {
            "store.db": 0o660,
            "store.db-shm": 0o660,
            "store.db-wal": 0o660,
        }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
@pytest.mark.parametrize("made_before", [False, True])
def test_what_root_makes_belongs_to_the_folders_owner(path: Path, *, made_before: bool) -> None:
    """Kamailio's user can use the store, whether or not root's command line was there first."""
    os.chown(path.parent, 65534, 65534)
    if made_before:
        with Store(path):
            pass
        os.chown(path, 65534, 65534)
    with Store(path) as store:
        store.set_state("a", "b", now=NOW)
        found = {(one.stat().st_uid, one.stat().st_gid) for one in path.parent.iterdir()}
        assert len(list(path.parent.iterdir())) == 3
        assert found == {(65534, 65534)}


def test_modes_are_mended(path: Path) -> None:
    """A file that was made for its owner alone is the group's when it is opened the next time."""
    with Store(path):
        pass
    path.chmod(0o600)
    with Store(path):
        assert _modes(path.parent)["store.db"] == 0o660


def test_another_opening_ends_no_lock(path: Path) -> None:
    """Who closes a file ends SQLite's locks of the process on it: a second store may not."""
    take = "import sqlite3, sys\nsqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    with sqlite3.connect(path, isolation_level=None) as held:
        held.execute("BEGIN IMMEDIATE")
        module.make_shared(path)
        done = subprocess.run(
            [sys.executable, "-c", take, path], capture_output=True, timeout=30, check=False
        )
    held.close()
    assert b"database is locked" in done.stderr


def test_store_that_is_a_link_is_refused(path: Path, tmp_path: Path) -> None:
    """A member of the group cannot have root change another file; one line says why."""
    other = tmp_path / "other"
    for there in (False, True):
        if there:
            other.write_bytes(b"")
            other.chmod(0o600)
            path.unlink()
        path.symlink_to(other)
        with pytest.raises(StoreError, match=rf"^{path}: is a link, .*$"):
            Store(path)
        assert other.exists() is there
    assert (other.read_bytes(), stat.S_IMODE(other.stat().st_mode)) == (b"", 0o600)


@pytest.mark.timeout(5)
def test_store_that_is_a_named_pipe_is_refused(path: Path) -> None:
    """Nobody waits for one who writes into it."""
    os.mkfifo(path)
    with pytest.raises(StoreError, match="is no file"):
        Store(path)


def test_folder_that_is_a_link(tmp_path: Path) -> None:
    """It may be one, or lie below one: the administrator made it."""
    (tmp_path / "real/below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    for folder in (tmp_path / "link", tmp_path / "link/below"):
        with Store(folder / "store.db") as store:
            store.set_state("a", "b", now=NOW)
    assert (tmp_path / "real/below/store.db").is_file()


def test_steady_look_sees_one_state(tmp_path: Path) -> None:
    """What others write meanwhile is not seen, and they need not wait."""
    with Store(tmp_path / "store.db") as store, Store(tmp_path / "store.db") as other:
        with store.steady():
            before = store.position()
            other.set_mode(Mode.OFF, now=1.0)
            assert other.position() > before
            assert store.position() == before
            assert store.mode(1.0) is None
        assert store.mode(1.0) is not None
        assert store.changed_outside()
