"""Reading what the kernel says of memory."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

from apiban.bench.memory import Region, descendants, memory_of, regions
from apiban.snapshot.file import hold_snapshot

_SMAPS = """\
55d0c0a00000-55d0c0a21000 rw-p 00000000 00:00 0                          [heap]
Size:                132 kB
Pss:                  40 kB
Pss_Dirty:            40 kB
Private_Clean:         4 kB
Private_Dirty:        36 kB
VmFlags: rd wr mr mw me ac sd
7f0000000000-7f0000100000 r--s 00000000 00:01 77           /memfd:apiban-list (deleted)
Pss:                 512 kB
Private_Clean:         0 kB
Private_Dirty:         0 kB
7f0000200000-7f0000201000 rw-p 00000000 00:00 0
Pss:                   2 kB
Private_Clean:         0 kB
Private_Dirty:         2 kB
"""


def test_each_mapping_is_read_with_its_name_and_sizes() -> None:
    """Three mappings, one of them without a name; Pss_Dirty is not taken for Pss."""
    assert list(regions(_SMAPS)) == [
        Region("[heap]", 40, 40),
        Region("/memfd:apiban-list (deleted)", 512, 0),
        Region("", 2, 2),
    ]


def test_children_of_children_are_found() -> None:
    """A process that a child started in a session of its own belongs to it."""
    code = "import subprocess; subprocess.run(['sleep', '30'], start_new_session=True)"
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        while len(found := descendants(child.pid)) < 2:
            assert child.poll() is None
        assert Path(f"/proc/{found[1]}/cmdline").read_bytes().startswith((b"sleep", b"/", b"py"))
        assert os.getsid(found[1]) == found[1] or os.getsid(found[1]) == os.getsid(0)
    finally:
        for pid in reversed(descendants(child.pid)):
            os.kill(pid, 9)
        child.wait()


def test_a_list_in_memory_counts_once_and_is_no_workers_own(tmp_path: Path) -> None:
    """A mapped list of 64 MiB and a runtime file of 8 MiB are in the total alone."""
    (tmp_path / "counters").write_bytes(os.urandom(8 << 20))
    before = memory_of(os.getpid(), [os.getpid()], tmp_path)
    handle = hold_snapshot(bytes(64 << 20))
    mapped = mmap.mmap(handle, 0, prot=mmap.PROT_READ)
    try:
        assert not any(mapped[:: mmap.PAGESIZE])
        after = memory_of(os.getpid(), [os.getpid()], tmp_path)
    finally:
        mapped.close()
        os.close(handle)
    without_files = memory_of(os.getpid(), [os.getpid()])
    assert 60 << 10 < after.total - before.total < 70 << 10
    assert 6 << 10 < before.total - without_files.total < 10 << 10
    assert 0 < after.worker < before.worker + (8 << 10)
