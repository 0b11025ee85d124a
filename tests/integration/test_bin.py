"""The commands of the README, as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from apiban.trial.kamailio import SCRIPT

from tests.support.api import KEY, Api
from tests.support.node import NodeUnderTest, wait_for

pytestmark = pytest.mark.kamailio

BIN = SCRIPT.parents[1] / "bin"


def environ(**more: str) -> dict[str, str]:
    """Give the environment without settings from outside."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("APIBAN")}
    return {**clean, **more}


def run(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run one of the commands to its end."""
    return subprocess.run(
        [BIN / command[0], *command[1:]],
        env=environ(**more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def folders(parent: Path) -> set[str]:
    """Give what stands in a folder."""
    return {path.name for path in parent.iterdir()}


@pytest.mark.parametrize(
    "name",
    [
        *("run", "test", "check-settings", "counters", "fresh-roots"),
        *("apiban", "bench-feed", "bench", "lab", "man", "tour", "deb"),
    ],
)
def test_help(name: str) -> None:
    """Each command says what it does, and does nothing else."""
    done = run(name, "--help")
    assert done.returncode == 0
    assert "usage:" in done.stdout.lower()


def test_run_once(tmp_path: Path) -> None:
    """The trial ends well, with the table, and leaves nothing behind."""
    done = run("run", "--once", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    rows = dict(line.strip().rsplit(None, 1) for line in done.stdout.splitlines() if "  " in line)
    assert int(rows["packets sent by listed sources"]) == int(rows["dropped before parsing"]) > 0
    assert rows["good calls tried"] != "0"
    assert folders(tmp_path) == set()


def test_run_stays_until_interrupted(tmp_path: Path) -> None:
    """Without --once it stays up; Ctrl-C ends everything that it started."""
    with (tmp_path / "out").open("wb") as out:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        running = subprocess.Popen(
            [BIN / "run"], env=environ(TMPDIR=str(scratch)), stdout=out, stderr=out
        )
    try:
        out_file = tmp_path / "out"
        wait_for(
            lambda: b"stays up" in out_file.read_bytes() or running.poll() is not None,
            "the summary",
            90,
        )
        assert running.poll() is None, out_file.read_text()
        assert folders(scratch)
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(30)
    assert folders(scratch) == set()
    assert running.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_run_interrupted_in_the_flood(tmp_path: Path, number: signal.Signals) -> None:
    """It is no success, and nothing that it started goes on."""
    out = tmp_path / "out"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with out.open("wb") as file:
        running = subprocess.Popen(
            [BIN / "run", "--once"], env=environ(TMPDIR=str(scratch)), stdout=file, stderr=file
        )
    wait_for(
        lambda: b"flood from" in out.read_bytes() or running.poll() is not None, "the flood", 90
    )
    running.send_signal(number)
    assert running.wait(30) == 130
    assert folders(scratch) == set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert str(scratch).encode() not in path.read_bytes()
        except OSError:
            continue


def test_run_with_a_key_sends_no_flood(tmp_path: Path) -> None:
    """With a key and a URL it protects with that list, and nothing else."""
    api = Api(("127.0.1.5",))
    try:
        done = run(
            *("run", "--once", "--listen", "127.0.5.9:15060"),
            APIBANKEY=KEY,
            APIBAN_FEED_URL=api.url,
            TMPDIR=str(tmp_path),
        )
    finally:
        api.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "event=pass-end" in done.stdout
    assert "flood" not in done.stdout
    assert KEY not in done.stdout + done.stderr
    assert 1 <= len(api.requests) <= 5


def test_run_with_a_bad_setting_says_so(tmp_path: Path) -> None:
    """One line names the setting; there is no traceback."""
    done = run("run", "--once", APIBAN_KEY="x", APIBAN_MODE="perhaps", TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert "APIBAN_MODE = perhaps" in done.stderr
    assert "Traceback" not in done.stderr


def test_counters(node: NodeUnderTest) -> None:
    """bin/counters shows each worker's own numbers."""
    assert node.is_dropped("127.0.1.5")
    done = run("counters", "--runtime", str(node.folder / "runtime"))
    report = json.loads(done.stdout)
    assert report["total"]["dropped"] == report["front"]["dropped"] + sum(
        worker["counts"]["dropped"] for worker in report["workers"]
    )
    assert report["total"]["dropped"] >= 1
    assert run("counters", "--runtime", "/nowhere").returncode == 1


def test_key_is_nowhere(node: NodeUnderTest) -> None:
    """Neither in the log, nor in a process list, nor in a file that others can read."""
    node.api.mode = "failing"
    wait_for(lambda: node.events("feed-trouble"), "the trouble in the log")
    assert KEY not in "\n".join(node.kamailio.log_lines())
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:  # the sync process is there all the time
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes()
            except OSError:
                continue
            assert KEY.encode() not in words
        time.sleep(0.1)
    for path in node.folder.rglob("*"):
        if path.is_file() and KEY.encode() in path.read_bytes():
            assert path.stat().st_mode & 0o004 == 0, path


def test_quick_benchmark(tmp_path: Path) -> None:
    """A part of it measures something, says on what, and tells machines and people the same."""
    done = run(
        "bench", "--quick", "--only", "good", "--json", str(tmp_path / "x"), TMPDIR=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "x").read_text(encoding="utf-8"))
    assert "kamailio" in report["machine"]["kamailio"]
    (part,) = report["parts"].values()
    assert all(figure["median"] > 0.1 for figure in part.values())
    assert f"| {next(iter(part))} |" in done.stdout
    assert [goal["name"] for goal in report["goals"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]


@pytest.mark.parametrize("words", [("--only", "nothing"), ("--json", "/nowhere/x")])
def test_benchmark_refuses(words: tuple[str, ...]) -> None:
    """What it cannot do is said before anything is measured."""
    done = run("bench", *words)
    assert done.returncode == 2
    assert words[1] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(300)
def test_tour_shows_every_verb_at_work(tmp_path: Path) -> None:
    """Each screen beside a Kamailio under flood holds what it must, and no good call fails."""
    done = subprocess.run(
        [BIN / "tour", "--screens", tmp_path],
        env=environ(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert len(list(tmp_path.glob("*.txt"))) > 20
