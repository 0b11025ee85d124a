"""What cannot be done is said in one line, and the kernel is as before."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from apiban.errors import FirewallError
from apiban.firewall.backend import Backend
from apiban.firewall.elements import FOREVER, Change

from tests.contract.firewall.kits import Kit
from tests.contract.firewall.parts import LISTED, block, blocks, many, rules, same

ROOT = Path(__file__).parents[3]
ONE = {block(LISTED): FOREVER, block("203.0.113.0/24"): FOREVER}


def applying(
    kit: Kit, *before: str, start: str = "11.0.0.0", number: int = 1
) -> subprocess.Popen[str]:
    """Start a process that builds a list, after other words of a command line."""
    return subprocess.Popen(
        [
            *before,
            sys.executable,
            "-m",
            "tests.contract.firewall.applying",
            kit.name,
            start,
            str(number),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'kemi'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def said(kit: Kit, *before: str) -> str:
    """Let a process build a list; give the one line that it says."""
    process = applying(kit, *before)
    out, err = process.communicate("go\n", timeout=60)
    assert err == "ready\n"
    assert process.returncode == 0
    assert out.count("\n") == 1, out
    return out.strip()


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_bad_change_changes_nothing(kit: Kit, backend: Backend, *, rebuild: bool) -> None:
    """All of it or nothing: also what could have been done of it is not."""
    allowed = blocks("192.0.2.1")
    backend.apply(Change(add=ONE, allow=allowed, rebuild=True), rules(), now=time.time())
    mark = backend.mark()
    with pytest.raises(FirewallError) as raised:
        backend.apply(replace(kit.bad, rebuild=rebuild), rules(), now=time.time())
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300
    assert backend.mark() == mark
    assert same(backend.read(rules(), now=time.time()), ONE, allowed)


def test_a_change_of_what_is_gone(backend: Backend) -> None:
    """A change where nothing of ours is there is an error, and puts nothing half-way there."""
    with pytest.raises(FirewallError) as raised:
        backend.apply(Change(add=ONE), rules(), now=time.time())
    assert "\n" not in str(raised.value)
    assert backend.read(rules(), now=time.time()) is None


def test_killed_at_any_instant(kit: Kit, backend: Backend) -> None:
    """Kill -9 of who builds a list of 20,000 leaves the old one or the new one, never parts."""
    lists = {start: many(20_000, start) for start in ("11.0.0.0", "12.0.0.0")}
    backend.apply(Change(add=lists["11.0.0.0"], rebuild=True), rules(), now=time.time())
    chance = random.Random(6)
    found = []
    for turn in range(20):
        start = ("12.0.0.0", "11.0.0.0")[turn % 2]
        process = applying(kit, start=start, number=20_000)
        assert process.stderr is not None
        assert process.stdin is not None
        assert process.stderr.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(chance.uniform(0, 0.12))
        # Alone, or with the kernel's tool that it may have started.
        (os.kill if turn % 4 < 2 else os.killpg)(process.pid, signal.SIGKILL)
        process.communicate()
        held = backend.read(rules(), now=time.time())
        states = [name for name, one in lists.items() if same(held, one, frozenset())]
        assert states, f"turn {turn}: neither the old nor the new"
        found += states
    assert len(found) == 20


def test_privileges_missing(kit: Kit, backend: Backend) -> None:
    """Who lacks CAP_NET_ADMIN is told its name."""
    line = said(kit, "setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
    assert "CAP_NET_ADMIN" in line
    assert backend.read(rules(), now=time.time()) is None


def test_the_program_is_missing(kit: Kit, backend: Backend) -> None:
    """Where the tool is not there, the line names the package that it is of."""
    line = said(kit, *_hidden(kit, "/dev/null"))
    assert kit.program in line
    assert f"apt-get install {kit.package}" in line


def test_the_module_is_missing(kit: Kit, backend: Backend, tmp_path: Path) -> None:
    """Where the kernel cannot do it, the line names the module."""
    stub = tmp_path / "stub"
    stub.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{kit.says}' >&2\nexit 1\n", encoding="utf-8")
    stub.chmod(0o755)
    assert "modprobe" in said(kit, *_hidden(kit, str(stub)))


def _hidden(kit: Kit, instead: str) -> tuple[str, ...]:
    """Give the words that put something in a program's place, in the eyes of one process."""
    program = shutil.which(kit.program, path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert program is not None
    script = f'mount --bind {instead} {program} && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh")
