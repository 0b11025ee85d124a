"""Whether a process runs."""

from __future__ import annotations

import os
import subprocess

from apiban.alive import is_alive


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
