"""What goes wrong around a running node leaves its verdicts as they were."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from apiban.trial.kamailio import SCRIPT

from tests.support.node import NodeUnderTest, wait_for
from tests.support.sip import Sender

pytestmark = pytest.mark.kamailio

LISTED, ALSO, GOOD = "127.0.1.5", "127.0.1.6", "127.0.2.1"
MakeNode = Callable[..., NodeUnderTest]


def keeps_its_fate(node: NodeUnderTest) -> bool:
    """Tell whether the listed are dropped and the good served, on both transports."""
    return all(
        node.is_dropped(LISTED, transport) and node.passes(GOOD, transport)
        for transport in ("udp", "tcp")
    )


def sync_pid(node: NodeUnderTest) -> int:
    """Give the sync process's id, from its own line in the log."""
    return int(node.events("sync-start")[-1].rpartition("pid=")[2].split()[0])


@pytest.fixture
def copied_script(tmp_path: Path) -> Path:
    """Give a copy of the code that a test may break."""
    folder = tmp_path / "code" / "kemi"
    shutil.copytree(SCRIPT.parent / "apiban", folder / "apiban")
    shutil.copy(SCRIPT, folder / SCRIPT.name)
    return folder / SCRIPT.name


def copied_node(make_node: MakeNode, script: Path, **options: object) -> NodeUnderTest:
    """Make a node that runs the copy, with the libraries of this environment."""
    node = make_node((LISTED, ALSO), script=script, **options)
    node.kamailio._environ["APIBAN_VENV"] = str(SCRIPT.parents[1] / ".venv")
    return node


def reload(node: NodeUnderTest) -> None:
    """Ask for a reload, and let every worker meet it."""
    node.kamailio.rpc("app_python.reload")
    with Sender(GOOD, node.target) as sender:
        for _ in range(50):
            sender.ask(timeout=1)


def test_reload_takes_new_code_and_keeps_the_list(make_node: MakeNode, copied_script: Path) -> None:
    """After app_python.reload the new package runs, with the list and the counts of before."""
    node = copied_node(make_node, copied_script).start()
    assert keeps_its_fate(node)
    dropped = node.board.total().dropped
    version = copied_script.parent / "apiban" / "__init__.py"
    version.write_text(version.read_text().replace('"0.1.0"', '"9.9.9"'))
    reload(node)
    wait_for(lambda: any("version=9.9.9" in line for line in node.events("reload")), "new code")
    assert keeps_its_fate(node)
    assert node.board.total().dropped >= dropped
    wait_for(lambda: len(node.events("sync-start")) >= 2, "the sync process of the new code")
    node.api.feed.add("127.0.1.88")
    wait_for(lambda: node.is_dropped("127.0.1.88"), "a page by the new sync")


@pytest.mark.parametrize("damage", ["syntax", "missing", "raises", "settings"])
def test_reload_of_a_broken_package(make_node: MakeNode, copied_script: Path, damage: str) -> None:
    """A package that cannot be loaded leaves the running code at work, and is said."""
    node = copied_node(make_node, copied_script).start()
    package = copied_script.parent / "apiban"
    if damage == "syntax":
        (package / "gate" / "gate.py").write_text("def broken(:\n")
    elif damage == "missing":
        shutil.rmtree(package)
    elif damage == "raises":
        (package / "kemi" / "node.py").write_text("raise SystemExit('no')\n")
    else:
        node.write_raw_settings("mode = 7\n")
    for _ in range(3):
        reload(node)
        assert keeps_its_fate(node)
    assert node.events("reload-failed")
    assert node.kamailio.running


def test_package_replaced_while_it_runs(make_node: MakeNode, copied_script: Path) -> None:
    """Files that vanish without a reload change nothing until the next start."""
    node = copied_node(make_node, copied_script).start()
    shutil.rmtree(copied_script.parent / "apiban")
    os.kill(sync_pid(node), signal.SIGKILL)
    wait_for(lambda: node.events("sync-ended"), "the end of the sync")
    assert keeps_its_fate(node)
    assert node.kamailio.running


def test_broken_package_at_the_start_passes_everything(
    make_node: MakeNode, copied_script: Path, tmp_path: Path
) -> None:
    """A native node whose package cannot be loaded serves calls, and says so loudly."""
    (copied_script.parent / "apiban" / "gate" / "gate.py").write_text("import nothing_such\n")
    path = tmp_path / "native.cfg"
    include = SCRIPT.parents[1] / "kamailio" / "apiban-include.cfg"
    path.write_text(
        '#!KAMAILIO\ndebug=2\nloadmodule "kex.so"\nloadmodule "sl.so"\nloadmodule "pv.so"\n'
        f'loadmodule "ctl.so"\ninclude_file "{include}"\n'
        'request_route { sl_send_reply("200", "OK"); }\n'
    )
    node = make_node((LISTED,), script=copied_script, configuration=path).start(wait=False)
    assert node.passes(LISTED)
    assert "NOTHING IS PROTECTED" in node.events("no-package")[0]


@pytest.mark.parametrize("native", [False, True], ids=["kemi", "native"])
def test_exception_and_missing_method_let_calls_through(
    make_node: MakeNode, copied_script: Path, tmp_path: Path, *, native: bool
) -> None:
    """A gate that raises for each packet serves calls, counts it, and logs it once."""
    gate = copied_script.parent / "apiban" / "gate" / "gate.py"
    gate.write_text(
        gate.read_text().replace("snapshot = self.snapshot\n", "raise RuntimeError('boom')\n")
    )
    assert "boom" in gate.read_text()
    options = {}
    if native:
        path = tmp_path / "native.cfg"
        include = SCRIPT.parents[1] / "kamailio" / "apiban-include.cfg"
        path.write_text(
            '#!KAMAILIO\ndebug=2\nchildren=1\nloadmodule "kex.so"\nloadmodule "sl.so"\n'
            'loadmodule "pv.so"\n'
            f'loadmodule "ctl.so"\ninclude_file "{include}"\n'
            'request_route { python_exec("ksr_no_such_method");'
            ' sl_send_reply("200", "OK"); }\n'
        )
        options["configuration"] = path
    node = copied_node(make_node, copied_script, **options).start()
    for _ in range(20):
        assert node.passes(GOOD)
    assert node.board.total().faults >= 20
    faults = node.events("fault")
    assert 1 <= len(faults) <= 5  # at most one for each worker that met it
    assert "Traceback" not in "\n".join(node.kamailio.log_lines())


@pytest.mark.parametrize("mode", ["slow", "failing", "garbage", "unauthorized", "limited", "empty"])
def test_feed_trouble(make_node: MakeNode, mode: str) -> None:
    """Whatever the API does, good calls succeed, the list stays, and it is said once."""
    node = make_node((LISTED, ALSO))
    node.write_settings(feed__reconcile_every=1, feed__timeout=25)
    node.start()
    if mode == "slow":
        node.api.delay = 20.0
    else:
        node.api.mode = mode
    asked = len(node.api.requests)
    wait_for(lambda: len(node.api.requests) > asked + (mode == "empty"), "a request in trouble")
    if mode == "empty":
        wait_for(lambda: node.events("pass-held"), "a held pass")
    elif mode != "slow":
        wait_for(lambda: node.events("feed-trouble"), "the trouble in the log")
    for _ in range(5):
        assert node.passes(GOOD)
        assert node.is_dropped(LISTED)
    # A slow API holds up no settings either.
    node.write_settings(allow__networks=[ALSO])
    assert wait_for(lambda: node.passes(ALSO, timeout=0.2), "the allowed one's answer") < 2.5
    assert len(node.events("feed-trouble")) <= 1


def test_api_that_lists_nothing_from_the_start(make_node: MakeNode) -> None:
    """An empty list at the first start is taken as such: nobody is dropped."""
    node = make_node(())
    node.start()
    assert node.passes(LISTED)
    assert node.passes(GOOD)


def test_missing_key_starts_on_the_last_list(node: NodeUnderTest) -> None:
    """Without a key nothing is asked, the last list protects, and it is said."""
    node.kamailio.stop()
    asked = len(node.api.requests)
    node.write_settings(feed__key="")
    node.kamailio.start()
    assert keeps_its_fate(node)
    wait_for(lambda: node.events("feed-no-key"), "the missing key in the log")
    assert len(node.api.requests) == asked


def test_bad_settings_stop_an_initial_start(make_node: MakeNode) -> None:
    """Kamailio does not start, and one line says every reason; the checker says the same."""
    node = make_node(())
    node.write_raw_settings('mode = "perhaps"\n[feed]\ninterval = 0\n')
    with pytest.raises(Exception, match="did not start"):
        node.kamailio.start()
    lines = node.events("settings-refused")
    assert len(lines) == 1
    assert "mode = perhaps" in lines[0]
    assert "feed.interval = 0" in lines[0]
    assert "Traceback" not in "\n".join(node.kamailio.log_lines())
    checker = SCRIPT.parents[1] / "bin" / "check-settings"
    done = subprocess.run(
        [checker], env=node.environ(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "mode = perhaps" in done.stderr


def test_twenty_kills_of_the_sync(make_node: MakeNode, copied_script: Path) -> None:
    """Twenty kills at random moments change no fate, lose no list, and the sync goes on."""
    keeper = copied_script.parent / "apiban" / "kemi" / "keeper.py"
    text = keeper.read_text()
    keeper.write_text(text.replace("_KILLED: Final = 2.0", "_KILLED: Final = 0.5"))
    assert keeper.read_text() != text  # the pauses have tests of their own
    node = copied_node(make_node, copied_script).start()
    chance = random.Random(4711)
    killed = set()
    while len(killed) < 20:
        wait_for(lambda: sync_pid(node) not in killed, "a new sync process", 70)
        time.sleep(chance.uniform(0.0, 0.15))  # the random moment is the point
        pid = sync_pid(node)
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)
        assert node.is_dropped(LISTED)
        assert node.passes(GOOD)
    node.api.feed.add("127.0.1.99")
    wait_for(lambda: node.is_dropped("127.0.1.99"), "a page after the last kill", 70)
    assert keeps_its_fate(node)


def test_truncated_snapshot(node: NodeUnderTest) -> None:
    """The durable file cut short in place hurts nobody, is replaced, and survives a restart."""
    durable = node.folder / "state" / "snapshot"
    size = durable.stat().st_size
    os.truncate(durable, 10)
    assert keeps_its_fate(node)
    wait_for(lambda: durable.stat().st_size == size, "a new durable snapshot")
    assert keeps_its_fate(node)


def test_truncated_runtime_snapshot(make_node: MakeNode) -> None:
    """No file that somebody cuts short under running traffic ends a worker, or lets one through."""
    listed = tuple(f"127.66.{number // 250}.{number % 250 + 1}" for number in range(5000))
    node = make_node(listed).start()
    sent = dropped = node.board.total().dropped
    with contextlib.ExitStack() as stack:
        senders = [stack.enter_context(Sender(one, node.target)) for one in listed[::60]]
        for cut in (None, 2, 64, 0):
            for path in (node.folder / "runtime").glob("snapshot-*"):
                with contextlib.suppress(FileNotFoundError):  # a newer one took its place
                    os.truncate(path, path.stat().st_size // 2 if cut is None else cut)
            node.api.feed.add(f"127.67.0.{1 if cut is None else cut + 2}")  # a new list beside it
            for _ in range(40):
                for sender in senders:
                    sender.send()
                sent += len(senders)
                wait_for(node.has_read_all, "the workers")
            assert node.passes(GOOD)
    wait_for(lambda: node.board.total().dropped >= sent, "every drop")
    assert node.board.total().dropped - dropped == 4 * 40 * len(senders)
    assert node.board.total().faults == 0
    assert node.upstream.saw(GOOD)
    assert not node.upstream.saw("127.66.")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "unknown format", "missing"])
def test_damaged_snapshot_at_the_start(node: NodeUnderTest, damage: str) -> None:
    """A start with a bad snapshot compiles it anew from the store before the first packet."""
    node.kamailio.stop()
    node.api.stop()
    durable = node.folder / "state" / "snapshot"
    content = bytearray(durable.read_bytes())
    durable.unlink()
    if damage == "truncated":
        durable.write_bytes(content[:70])
    elif damage == "flipped":
        content[-1] ^= 0xFF
        durable.write_bytes(content)
    elif damage == "unknown format":
        content[8] = 99
        durable.write_bytes(content)
    node.kamailio.start()
    assert node.is_dropped(LISTED)
    assert node.passes(GOOD)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a state folder of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_full_disk(make_node: MakeNode, small_disk: Path) -> None:
    """A full disk stops the sync with one line; fates stay, and it goes on when there is room."""
    node = make_node((LISTED, ALSO))
    node.write_settings(paths__state=str(small_disk))
    node.start()
    with (small_disk / "ballast").open("wb", buffering=0) as ballast:
        while True:
            try:
                ballast.write(b"x" * 65536)
            except OSError:
                break
        for size in (4096, 512, 1):
            try:
                while True:
                    ballast.write(b"x" * size)
            except OSError:
                continue
    node.api.feed.add(*(f"127.9.{number}.1" for number in range(200)))
    wait_for(lambda: node.events("store-failed") or node.events("publish-failed"), "a line of it")
    assert keeps_its_fate(node)
    assert len(node.events("store-failed")) <= 2
    (small_disk / "ballast").unlink()
    wait_for(lambda: node.is_dropped("127.9.150.1"), "the page once there is room", 30)
    assert keeps_its_fate(node)


def test_read_only_state_folder(make_node: MakeNode, small_disk: Path) -> None:
    """With a state folder that cannot be written the last list protects, and it is said once."""
    node = make_node((LISTED, ALSO))
    node.write_settings(paths__state=str(small_disk))
    node.start()
    node.kamailio.stop()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    node.kamailio.start()
    wait_for(lambda: node.events("store-failed"), "a line of it")
    assert keeps_its_fate(node)
    assert len(node.events("store-failed")) == 1


def test_store_of_a_newer_version(node: NodeUnderTest) -> None:
    """State that a newer version wrote is left alone with one line, and calls flow."""
    node.kamailio.stop()
    database = node.folder / "state" / "store.db"
    import sqlite3

    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    lines = len(node.events("store-failed"))
    node.kamailio.start()
    wait_for(lambda: len(node.events("store-failed")) > lines, "the line about the version")
    assert keeps_its_fate(node)
    assert len(node.events("store-failed")) == lines + 1
    assert "install the newer package" in node.events("store-failed")[-1]


def test_runtime_folder_emptied(node: NodeUnderTest) -> None:
    """Runtime files that vanish are published anew; workers never lose their list."""
    runtime = node.folder / "runtime"
    board = node.board
    for path in runtime.glob("snapshot-*"):
        path.unlink()
    assert keeps_its_fate(node)
    wait_for(lambda: list(runtime.glob("snapshot-*")), "a new runtime snapshot")
    (runtime / "counters").unlink()
    node.api.feed.add("127.0.1.99")
    dropped = board.total().dropped
    wait_for(lambda: not node.ask("127.0.1.99", timeout=0.3), "a drop without the file")
    assert board.total().dropped > dropped


def test_log_of_a_flood_stays_short(make_node: MakeNode) -> None:
    """100,000 packets from 10,000 listed sources over 4 workers leave fewer than 50 lines."""
    sources = [f"127.77.{number // 100}.{number % 100 + 1}" for number in range(10_000)]
    node = make_node(tuple(sources), workers=4).start()
    before = len(node.kamailio.log_lines())
    board = node.board
    dropped = board.total().dropped
    sent = 0
    for start in range(0, len(sources), 200):
        senders = [Sender(source, node.target) for source in sources[start : start + 200]]
        for _ in range(10):
            for sender in senders:
                sender.send()
            sent += len(senders)
            wait_for(node.has_read_all, "the workers")
        for sender in senders:
            sender.socket.close()
    wait_for(lambda: board.total().dropped - dropped == sent, "every drop")
    assert sent == 100_000
    assert len(node.kamailio.log_lines()) - before < 50
    assert node.passes(GOOD)
