"""A Docker daemon: the one that answers, or one of the lab's own, which leaves nothing behind.

The lab's own has its data, its socket and all else in one folder, and its processes and mounts in
namespaces that end with it. To build it has this host's network, and changes nothing there. To run
the lab it has a network of its own: the lab's bridge, its addresses and Docker's firewall rules are
in there, and no rule of this host stands in the lab's way.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from apiban.lab.command import LabError, succeeds

__all__ = ["Daemon", "daemon_command"]

_START_TIMEOUT: Final = 60.0
_STOP_TIMEOUT: Final = 30.0
# Docker 20 makes this wherever its own folders are; others may have made it before.
_KEY: Final = Path("/etc/docker/key.json")
# Docker makes these wherever its own folders are; with something in them they are somebody's.
_EMPTY: Final = (Path("/run/docker/plugins"), Path("/run/docker"))
_GROUP_TIMEOUT: Final = 2.0


def daemon_command(folder: Path, *, isolated: bool) -> list[str]:
    """Give the command line of the lab's own daemon; it ends with the process that this starts."""
    network = ["--net"] if isolated else []
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *network]
    words += [
        *("dockerd", "--config-file", str(folder / "daemon.json")),
        *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
        *("--pidfile", str(folder / "docker.pid"), "-H", f"unix://{folder / 'docker.sock'}"),
        *("--cgroup-parent", folder.name, "--bridge", "none", "--log-level", "warn"),
    ]
    return words if isolated else [*words, "--iptables=false", "--ip-forward=false"]


class Daemon:
    """Where Docker answers. ``folder`` is the lab's, and holds its own daemon if there is one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pid_file = folder / "unshare.pid"
        self._key_file = folder / "key.json"  # the key that our own daemon made, if it did

    @property
    def own(self) -> bool:
        """Whether the lab's own daemon runs."""
        return self._pid() is not None

    def docker(self) -> list[str]:
        """Give the beginning of Docker's command line."""
        return ["docker", "-H", self.host] if self.own else ["docker"]

    @property
    def host(self) -> str:
        """Give what ``DOCKER_HOST`` is for the lab's own daemon."""
        return f"unix://{self._folder / 'docker.sock'}"

    def answers(self) -> bool:
        """Tell whether a daemon answers, the lab's own or another."""
        return succeeds([*self.docker(), "version", "--format", "{{.Server.Version}}"])

    def start(self, *, isolated: bool) -> None:
        """Start the lab's own, with a network of its own or this host's; wait until it answers.

        Raises:
            LabError: with the last line of its log.

        """
        if os.geteuid() != 0:
            raise LabError("no Docker daemon answers, and only root can start one")
        if shutil.which("dockerd") is None:
            raise LabError("dockerd is not in PATH (Debian has it in docker.io)")
        (self._folder / "daemon.json").write_text("{}\n", encoding="ascii")
        (self._folder / "docker.pid").unlink(missing_ok=True)
        had_key = _KEY.exists()
        with (self._folder / "dockerd.log").open("wb") as log:
            process = subprocess.Popen(
                daemon_command(self._folder, isolated=isolated),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._pid_file.write_text(str(process.pid), encoding="ascii")
        give_up = time.monotonic() + _START_TIMEOUT
        while process.poll() is None and time.monotonic() < give_up:
            ready = self.own and self.answers()
            if not had_key and _KEY.exists():
                shutil.copyfile(_KEY, self._key_file)
            if ready:
                return
            time.sleep(0.1)
        said = (self._folder / "dockerd.log").read_text("utf-8", "replace").splitlines()
        self.stop()
        raise LabError(f"the Docker daemon did not start: {said[-1] if said else 'no word'}")

    def stop(self) -> None:
        """Let the lab's own end; its images stay."""
        pid = self._pid()
        for dockerd in _children(pid) if pid else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(dockerd, signal.SIGTERM)
        give_up = time.monotonic() + _STOP_TIMEOUT
        while self._pid() is not None and time.monotonic() < give_up:
            time.sleep(0.1)
        self.end()

    def end(self) -> None:
        """End the lab's own at once, and with it all that runs in it."""
        pid = self._pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while self._pid() is not None:
            time.sleep(0.05)
        if self._pid_file.exists():  # else the groups are not of this folder's daemon
            _remove_groups(self._folder.name)
        self._remove_key()
        for folder in _EMPTY:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _remove_key(self) -> None:
        """Remove the key that our own daemon made, while it is still that one."""
        with contextlib.suppress(OSError):
            if self._key_file.read_bytes() == _KEY.read_bytes():
                _KEY.unlink()
                _KEY.parent.rmdir()  # unless it holds something
        self._key_file.unlink(missing_ok=True)

    def _pid(self) -> int | None:
        """Give the process, of our start, whose daemon has its data in the lab's folder."""
        try:
            pid = int(self._pid_file.read_text(encoding="ascii"))
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self._folder / "data") in words else None


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(one) for one in text.split()]


def _remove_groups(name: str) -> None:
    """Remove the control groups that Docker leaves: in each hierarchy, or in the one."""
    for top in (*Path("/sys/fs/cgroup").glob(f"*/{name}"), Path("/sys/fs/cgroup") / name):
        for group in (*sorted(top.glob("**/"), reverse=True), top):
            _remove_group(group)


def _remove_group(group: Path) -> None:
    """Remove one as soon as its last process is gone, which was killed."""
    give_up = time.monotonic() + _GROUP_TIMEOUT
    while group.is_dir() and time.monotonic() < give_up:
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.05)
