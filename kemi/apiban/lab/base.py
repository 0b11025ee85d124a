"""The image that everything is built on: pulled, or made by debootstrap where none can be."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from apiban.lab.command import LabError, run, succeeds

__all__ = ["RELEASES", "base_image", "debootstrap_command", "host_release", "own_image"]

RELEASES: Final = ("bookworm", "trixie")
MIRROR: Final = "http://deb.debian.org/debian"

_PULL_TIMEOUT: Final = 60.0
_MAKE_TIMEOUT: Final = 600.0
# What Debian's own small images leave out, and what apt leaves behind.
_LEFT_OUT: Final = (
    *("./usr/share/doc/*", "./usr/share/info/*", "./usr/share/locale/*", "./usr/share/man/*"),
    *("./var/cache/apt/*", "./var/lib/apt/lists/*", "./var/log/*"),
)


def host_release(os_release: str) -> str:
    """Give the Debian release that /etc/os-release names, or the first that the lab knows."""
    for line in os_release.splitlines():
        name, _, text = line.partition("=")
        if name == "VERSION_CODENAME" and text.strip('"') in RELEASES:
            return text.strip('"')
    return RELEASES[0]


def own_image(release: str, project: str) -> str:
    """Give a project's own name of its base image: another copy's lab does not remove it."""
    return f"apiban-base:{project}-{release}"


def base_image(
    docker: Sequence[str], release: str, project: str, folder: Path, say: Callable[[str], None]
) -> str:
    """Give the project's name of an image of the release; pull it, or make it, if need be.

    What was pulled keeps no other name, unless it was there before.
    """
    public, ours = f"debian:{release}-slim", own_image(release, project)
    if succeeds([*docker, "image", "inspect", ours]):
        return ours
    was_there = succeeds([*docker, "image", "inspect", public])
    if was_there or succeeds([*docker, "pull", "-q", public], timeout=_PULL_TIMEOUT):
        run([*docker, "tag", public, ours])
        if not was_there:
            run([*docker, "image", "rm", public])
        return ours
    say(f"no registry is reachable: making the base image with debootstrap ({release})")
    _make(docker, release, ours, folder)
    return ours


def debootstrap_command(release: str, root: Path) -> list[str]:
    """Give debootstrap's command line; its mounts and processes end with it, even when killed."""
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return [*alone, "debootstrap", "--variant=minbase", release, str(root), MIRROR]


def _make(docker: Sequence[str], release: str, name: str, folder: Path) -> None:
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise LabError("no registry is reachable, and only root, with debootstrap, can do without")
    with tempfile.TemporaryDirectory(prefix="base-", dir=folder) as root:
        run(debootstrap_command(release, Path(root)), timeout=_MAKE_TIMEOUT)
        excluded = [f"--exclude={path}" for path in _LEFT_OUT]
        with subprocess.Popen(
            ["tar", "-C", root, *excluded, "-c", "."], stdout=subprocess.PIPE
        ) as tar:
            try:
                done = subprocess.run(
                    [*docker, "import", "-", name],
                    stdin=tar.stdout,
                    capture_output=True,
                    timeout=_MAKE_TIMEOUT,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                tar.kill()
                raise LabError(f"docker import: not within {_MAKE_TIMEOUT:g} s") from None
    if tar.returncode or done.returncode:
        raise LabError(f"docker import: {done.stderr.decode('utf-8', 'replace').strip()}")
