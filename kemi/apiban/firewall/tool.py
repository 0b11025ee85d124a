"""The kernel's tools, as processes: nft, ipset, iptables, conntrack."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from apiban.errors import FirewallError

__all__ = ["Done", "Run", "explain", "find", "run", "stream", "where"]

# Longer than any of them takes: one that hangs must not hang the client.
_WITHIN: Final = 60.0
_FED: Final = 200_000.0  # and so much longer: a second for so many bytes, some 5,000 entries
_PACKAGES: Final = {"ipset": "ipset", "conntrack": "conntrack", "nft": "nftables"}
# A service's PATH may lack the folders of root's programs.
_FOLDERS: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
_REFUSED: Final = re.compile(
    r"not permitted|permission denied|must be root|CAP_NET_ADMIN|open socket to ipset",
    re.IGNORECASE,
)
_LACKING: Final = re.compile(
    r"cannot open session|module|insmod|not supported|table does not exist"
    r"|unknown arguments found",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Done:
    """How a tool ended: its status (0 is good) and what it said."""

    status: int
    out: str
    err: str


# Start a tool with words, feed it a text, and wait for its end.
Run = Callable[[Sequence[str], str], Done]


def where(program: str) -> str | None:
    """Give a program's path; None when it is not there."""
    return shutil.which(program, path=_path())


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:{_FOLDERS}"


def find(program: str) -> tuple[str, dict[str, str]]:
    """Give a program's path, and what it runs in: messages in English, root's programs in PATH.

    Raises:
        FirewallError: it is not there.

    """
    found = where(program)
    if found is None:
        package = _PACKAGES.get(program, "iptables")
        raise FirewallError(f"the program {program} is missing (apt-get install {package})")
    return found, {"PATH": _path(), "LC_ALL": "C"}


def run(words: Sequence[str], text: str = "", *, within: float = _WITHIN) -> Done:
    """Run a tool to its end, which may be later by what it takes to read a long text.

    It reads the whole text even if this process dies meanwhile: a line cut off could say
    something else.

    Raises:
        FirewallError: it is not there, or it does not end.

    """
    program, environment = find(words[0])
    within += len(text) / _FED
    try:
        with os.fdopen(os.memfd_create("apiban"), "w+b") as file:
            file.write(text.encode("ascii"))
            file.seek(0)
            done = subprocess.run(
                [program, *words[1:]],
                stdin=file,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=within,
                check=False,
                env=environment,
            )
    except subprocess.TimeoutExpired:
        raise FirewallError(f"{words[0]} did not end within {within:.0f} s: stopped") from None
    except OSError as error:
        raise FirewallError(f"{words[0]} cannot be run: {error.strerror}") from None
    return Done(done.returncode, done.stdout, done.stderr)


def stream(words: Sequence[str], text: str = "", *, within: float) -> Iterator[str]:
    """Run a tool, and give each line that it says while it runs.

    Raises:
        FirewallError: it is not there, it failed, or it did not end in time: then it is stopped.

    """
    program, environment = find(words[0])
    with ExitStack() as left:
        fed = left.enter_context(os.fdopen(os.memfd_create("apiban"), "w+b"))
        said = left.enter_context(os.fdopen(os.memfd_create("apiban"), "w+b"))
        fed.write(text.encode("ascii"))
        fed.seek(0)
        try:
            process = subprocess.Popen(
                [program, *words[1:]],
                stdin=fed,
                stdout=subprocess.PIPE,
                stderr=said,
                encoding="utf-8",
                errors="replace",
                env=environment,
            )
        except OSError as error:
            raise FirewallError(f"{words[0]} cannot be run: {error.strerror}") from None
        left.enter_context(process)
        left.callback(process.kill)
        late = threading.Timer(within, process.kill)
        late.daemon = True
        late.start()
        left.callback(late.cancel)
        assert process.stdout is not None  # noqa: S101 - asked for above
        yield from process.stdout
        status = process.wait()
        if status == -signal.SIGKILL:
            raise FirewallError(f"{words[0]} did not end within {within:.1f} s: stopped")
        if status:
            said.seek(0)
            done = Done(status, "", said.read().decode("utf-8", "replace"))
            raise explain(words[0], done, modules="nf_conntrack nf_conntrack_netlink")


def explain(program: str, done: Done, *, modules: str) -> FirewallError:
    """Give the error for what a tool said when it failed, with the fix where it is known.

    ``modules`` are those of the kernel that it takes.
    """
    lines = [line.strip() for line in done.err.splitlines() if line.strip()]
    said = lines[0][:160] if lines else f"status {done.status}"
    said = said if said.startswith(program) else f"{program}: {said}"
    if _REFUSED.search(done.err):
        # iptables asks by a raw socket which sets there are.
        needed = (
            "CAP_NET_ADMIN is" if "tables" not in program else "CAP_NET_ADMIN and CAP_NET_RAW are"
        )
        return FirewallError(
            f"{program}: the kernel does not permit it: {needed} needed (run it as root, or as the"
            " service apiban-firewall)"
        )
    if _LACKING.search(done.err):
        return FirewallError(f"{said} (the kernel lacks a module: modprobe -a {modules})")
    return FirewallError(said)
