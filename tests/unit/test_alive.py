"""Whether a process runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from apiban.alive import is_alive

from tests.support.node import wait_for


def test_who_has_a_process_is_alive() -> None:
    """Whoever's it is."""
    assert is_alive(os.getpid())
    assert is_alive(1)
    assert not is_alive(2**22 + 1)  # beyond the largest number that the kernel gives


def test_who_ended_is_not_though_nobody_waited_for_it() -> None:
    """Its parent may never do so."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert is_alive(child.pid)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(child.pid)


def test_who_works_on_in_a_thread_is_alive() -> None:
    """Its first thread has ended, and holds no lock of the process."""
    code = (
        "import ctypes, sys, threading\n"
        "threading.Thread(target=sys.stdin.read).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        stat = Path(f"/proc/{child.pid}/stat")
        wait_for(lambda: b") Z " in stat.read_bytes(), "the first thread's end")
        assert is_alive(child.pid)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(child.pid)
