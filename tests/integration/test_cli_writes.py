"""The operator's writing verbs beside a real Kamailio that is at work."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from apiban.address import parse_network
from apiban.store import FEED_SOURCE, LOCAL, OPERATOR, Store
from apiban.trial.kamailio import CONFIGURATION, SCRIPT

from tests.integration.test_user import LIBRARIES, USER
from tests.support.node import NodeUnderTest, wait_for
from tests.support.sip import Sender

pytestmark = [pytest.mark.kamailio, pytest.mark.timeout(180)]

LISTED, GOOD, OTHER = "127.0.1.5", "127.0.2.1", "127.0.3.7"
MANY = [f"127.{40 + at // 2500}.{at // 250 % 10}.{at % 250 + 1}" for at in range(10_000)]


def apiban(node: NodeUnderTest, *words: str, text: str = "", status: int = 0) -> dict[str, Any]:
    """Run a verb with ``--json`` in a process of its own, and give what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "apiban.cli", *words, "--json"],
        env=node.environ(),
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@contextmanager
def traffic(node: NodeUnderTest) -> Iterator[None]:
    """Let good requests come from a few ports, so that every worker is at work."""
    end = threading.Event()
    failed: list[str] = []

    def ask() -> None:
        with Sender(GOOD, node.target) as sender:
            while not end.is_set():
                if b" 200 OK" not in sender.ask(timeout=5):
                    failed.append(sender.source)
                time.sleep(0.01)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert failed == []


def test_every_verb_is_in_force_within_a_second(node: NodeUnderTest) -> None:
    """What the command says is in force is so at the very next packets, while traffic flows."""
    with traffic(node):
        assert node.passes(OTHER)
        for words, dropped in (
            (("ban", OTHER, "--for", "1h"), True),
            (("unban", OTHER), False),
            (("ban", "127.0.3.0/28"), True),
            (("allow", "add", OTHER), False),
            (("allow", "remove", OTHER), True),
            (("unban", OTHER), False),  # of a wider range: the rest of it stays banned
            (("mode", "off"), False),
        ):
            in_force = apiban(node, *words)["in_force"]
            assert in_force["seconds"] < 1, words
            assert in_force["generation"] == node.board.generation
            # What native code remembers of a source is forgotten at the next tick.
            took = wait_for(
                lambda d=dropped: (
                    node.ask(OTHER, timeout=0.2) == b"" if d else node.passes(OTHER, timeout=0.2)
                ),
                f"{words} in force",
                2,
            )
            assert took < 1, words
        assert node.passes(LISTED)  # mode off
        apiban(node, "mode", "settings")
        wait_for(lambda: node.is_dropped(LISTED), "the settings' mode", 2)
        assert node.passes(OTHER)
        assert node.is_dropped("127.0.3.8")


def test_unban_of_the_feeds_outlives_its_next_listing(node: NodeUnderTest) -> None:
    """A false positive of the feed's passes at once, and after the feed listed it again."""
    assert node.is_dropped(LISTED)
    said = apiban(node, "unban", LISTED)
    assert said["allowed"][0]["banned_by"]["source"] == FEED_SOURCE
    wait_for(lambda: node.passes(LISTED, timeout=0.2), "its answer", 2)
    node.api.feed.add(LISTED)
    said = apiban(node, "sync", "--full")
    assert said["entries"] == 2
    assert node.passes(LISTED)
    assert node.is_dropped("127.0.1.6")
    apiban(node, "ban", LISTED)
    wait_for(lambda: node.is_dropped(LISTED), "the operator's later word", 2)


def test_refusals_change_nothing(node: NodeUnderTest) -> None:
    """Whom a ban would cut off is refused, and the list stays as it was."""
    generation = node.board.generation
    for address in (node.upstream.address, "127.0.0.1", "127.0.0.0/9", "0.0.0.0/0"):
        assert apiban(node, "ban", address, status=1)["banned"] == []
    assert node.board.generation == generation
    assert node.passes(GOOD)


def test_ten_thousand_addresses(node: NodeUnderTest, capsys: pytest.CaptureFixture[str]) -> None:
    """Banned, allowed, and neither, each in one call: in force within a second of it."""
    text = "\n".join(MANY)
    figures = []
    with traffic(node):
        for words, dropped in (
            (("ban", "-"), True),
            (("allow", "add", "-"), False),
            (("allow", "remove", "-"), True),
            (("unban", "-"), False),
        ):
            generation, began = node.board.generation, time.monotonic()
            in_force = apiban(node, *words, text=text)["in_force"]
            figures.append(
                f"{' '.join(words)}: {time.monotonic() - began:.2f} s for the call, of it "
                f"{in_force['seconds']:.2f} s until in force"
            )
            assert in_force["seconds"] < 1
            assert node.board.generation == generation + 1  # one change, one list
            for source in (MANY[0], MANY[-1]):
                wait_for(
                    lambda s=source, d=dropped: bool(node.ask(s, timeout=0.2)) is not d,
                    f"{words} in force for {source}",
                    2,
                )
    with capsys.disabled():
        print("\n" + "\n".join(figures))  # noqa: T201 - figures for the documentation


def test_writers_at_once_lose_nothing(make_node: Callable[..., NodeUnderTest]) -> None:
    """Two command lines and the sync write beside each other; none is locked out."""
    node = make_node([f"127.60.{at // 250}.{at % 250 + 1}" for at in range(3000)])
    node.write_settings(feed__reconcile_every=1)
    node.start()
    failed: list[str] = []

    def write(verb: tuple[str, ...], block: int) -> None:
        try:
            for at in range(20):
                text = "\n".join(f"127.{block}.{at}.{host}" for host in range(1, 41))
                apiban(node, *verb, "-", text=text)
        except AssertionError as error:
            failed.append(str(error))

    writers = [
        threading.Thread(target=write, args=(("ban",), 61)),
        threading.Thread(target=write, args=(("allow", "add"), 62)),
    ]
    pages = len(node.events("page"))
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failed == []
    assert len(node.events("page")) > pages + 5  # the sync wrote all the while
    assert node.events("store-failed") == []
    path = node.folder / "state" / "store.db"
    with Store(path) as store:
        assert store.count(LOCAL) == 800
        assert sum(one.source == OPERATOR for one in store.allow_list()) == 800
        assert store.count(FEED_SOURCE) == 3000
    node.stop()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.fixture
def shared() -> Iterator[Path]:
    """Give a folder with the code that any user can read, and folders for Kamailio's group."""
    folder = Path(tempfile.mkdtemp(prefix="apiban-cli-"))
    folder.chmod(0o755)
    shutil.copytree(SCRIPT.parent / "apiban", folder / "kemi" / "apiban")
    shutil.copy(SCRIPT, folder / "kemi" / SCRIPT.name)
    for configuration in CONFIGURATION.parent.glob("*.cfg"):
        shutil.copy(configuration, folder)
    installed = Path(click.__file__).parents[1]
    there = folder / ".venv" / installed.relative_to(installed.parents[2])
    for name in (*LIBRARIES, "click"):
        shutil.copytree(installed / name, there / name)
    user = pwd.getpwnam(USER)
    for name in ("state", "runtime"):
        (folder / name).mkdir()
        os.chown(folder / name, user.pw_uid, user.pw_gid)
        (folder / name).chmod(0o2770)
    yield folder
    shutil.rmtree(folder)


def test_member_of_the_group(make_node: Callable[..., NodeUnderTest], shared: Path) -> None:
    """Who is in Kamailio's group bans and allows without being root; who is not, may not."""
    user = pwd.getpwnam(USER)
    node = make_node(
        (LISTED,),
        script=shared / "kemi" / SCRIPT.name,
        configuration=shared / "kamailio.cfg",
        options=("-x", "tlsf", "-u", USER, "-g", USER),
    )
    node.settings_file = shared / "apiban.toml"
    node.kamailio._environ["APIBAN_SETTINGS"] = str(node.settings_file)
    node.write_settings(paths__state=str(shared / "state"), paths__runtime=str(shared / "runtime"))
    os.chown(node.settings_file, 0, user.pw_gid)
    node.folder = shared
    node.start()

    def run(*words: str, groups: str = str(user.pw_gid)) -> subprocess.CompletedProcess[str]:
        who = ("setpriv", "--reuid=65534", "--regid=65534", f"--groups={groups}")
        libraries = next((shared / ".venv").glob("lib/*/site-packages"))
        return subprocess.run(
            [*who, sys.executable, "-m", "apiban.cli", *words],
            env={**node.environ(), "PYTHONPATH": f"{shared / 'kemi'}:{libraries}"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    for words in (("ban", OTHER), ("allow", "add", LISTED), ("mode", "shadow"), ("sync",)):
        done = run(*words)
        assert done.returncode == 0, done.stderr
        assert "in force" in done.stdout
    assert run("mode", "settings").returncode == 0
    wait_for(lambda: node.is_dropped(OTHER), "the ban", 2)
    wait_for(lambda: node.passes(LISTED, timeout=0.2), "the allowed source", 2)
    stranger = run("ban", GOOD, groups="65534")
    assert stranger.returncode == 1
    assert stranger.stderr.count("\n") == 1
    # Root's and Kamailio's own work goes on with what the member made.
    assert apiban(node, "unban", OTHER)["in_force"]["seconds"] < 1
    node.restart()
    assert node.passes(LISTED)
    node.api.feed.add("127.0.1.9")
    wait_for(lambda: node.is_dropped("127.0.1.9"), "a page after the restart")


def test_sync_where_kamailio_does_not_run(
    make_node: Callable[..., NodeUnderTest],
) -> None:
    """The command is the sync process; the next start of Kamailio has its list."""
    node = make_node((LISTED,))
    for name in ("state", "runtime"):
        (node.folder / name).mkdir()
    said = apiban(node, "sync")
    assert said["entries"] == 1
    assert said["in_force"] is None
    apiban(node, "ban", OTHER)
    apiban(node, "sync")
    node.api.stop()
    node.start(wait=False)
    assert node.is_dropped(LISTED)
    assert node.is_dropped(OTHER)
    with Store(node.folder / "state" / "store.db") as store:
        assert store.find(parse_network(OTHER))


def test_root_syncs_as_the_owner_of_the_state(
    make_node: Callable[..., NodeUnderTest], shared: Path
) -> None:
    """What root's sync makes belongs to Kamailio's user, who goes on with it."""
    user = pwd.getpwnam(USER)
    node = make_node((LISTED,))
    node.settings_file = shared / "apiban.toml"
    node.write_settings(paths__state=str(shared / "state"), paths__runtime=str(shared / "runtime"))
    os.chown(node.settings_file, 0, user.pw_gid)
    libraries = next((shared / ".venv").glob("lib/*/site-packages"))
    done = subprocess.run(
        [sys.executable, "-m", "apiban.cli", "sync"],
        env={**node.environ(), "PYTHONPATH": f"{shared / 'kemi'}:{libraries}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "complete: 1 address" in done.stdout
    made = [path for name in ("state", "runtime") for path in (shared / name).iterdir()]
    assert {"snapshot", "store.db", "sync.lock"} <= {path.name for path in made}
    assert {path.stat().st_uid for path in made} == {user.pw_uid}


@pytest.mark.parametrize("running", [True, False])
def test_interrupted_sync(make_node: Callable[..., NodeUnderTest], *, running: bool) -> None:
    """Ctrl-C ends the command, status 130; whoever syncs next finds neither lock nor report."""
    node = make_node((LISTED,))
    state, runtime = node.folder / "state", node.folder / "runtime"
    if running:
        node.start()
    else:
        state.mkdir()
        runtime.mkdir()
    node.api.delay = 30
    command = subprocess.Popen(
        [sys.executable, "-m", "apiban.cli", "sync"],
        env=node.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    asked = len(node.api.requests)
    wait_for(lambda: len(node.api.requests) > asked, "the request", 20)
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=20)
    assert command.returncode == 130
    assert ("goes on" in said) is running
    assert "Traceback" not in said
    node.api.delay = 0
    if not running:
        assert not (runtime / "sync.json").exists()
        assert apiban(node, "sync")["entries"] == 1


def test_overruling_while_the_settings_have_a_mistake(node: NodeUnderTest) -> None:
    """Kamailio goes on with the last good ones, and so must the operator be able to."""
    assert node.is_dropped(LISTED)
    text = node.settings_file.read_text(encoding="utf-8")
    node.write_raw_settings(text.replace("[feed]", '[feed]\nwindow = "often"', 1))
    wait_for(lambda: node.events("settings-refused"), "the refusal")
    assert apiban(node, "unban", LISTED)["in_force"]["seconds"] < 1
    wait_for(lambda: node.passes(LISTED, timeout=0.2), "its answer", 2)
    upstream = node.upstream.uri.partition(":")[2].partition(":")[0]
    assert apiban(node, "ban", upstream, status=1)["banned"] == []
    assert apiban(node, "mode", "off")["in_force"]["seconds"] < 1
    wait_for(lambda: node.passes("127.0.1.6", timeout=0.2), "its answer", 2)


@pytest.mark.timeout(120)
def test_sync_process_that_hangs(node: NodeUnderTest) -> None:
    """What is changed is said not to be in force; the hang is a warning, and ends by itself."""
    pid = int(node.events("sync-start")[-1].rpartition("pid=")[2].split()[0])
    began = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    said = apiban(node, "ban", OTHER, status=4)["in_force"]
    assert said["seconds"] is None
    assert "not published within 5 s" in said["why_not"]
    wait_for(
        lambda: "sync-silent" in [one["code"] for one in apiban(node, "status")["warnings"]],
        "the warning",
        15,
    )
    assert node.passes(OTHER)
    wait_for(lambda: node.events("sync-ended"), "the end of the process", 40)
    assert 25 < time.monotonic() - began < 40
    assert "status=-9" in node.events("sync-ended")[0]
    assert "reason=silent" in node.events("sync-ended")[0]
    wait_for(lambda: node.ask(OTHER, timeout=0.2) == b"", "the ban in force", 10)
    codes = [one["code"] for one in apiban(node, "status")["warnings"]]
    assert "sync-silent" not in codes
    assert len(node.events("sync-ended")) == 1
