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

__all__ = ["RELEASES", "base_image", "host_release", "made_image"]

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


def made_image(release: str) -> str:
    """Give the name of the image that debootstrap makes."""
    return f"apiban-base:{release}"


def base_image(
    docker: Sequence[str], release: str, folder: Path, say: Callable[[str], None]
) -> str:
    """Give the name of an image of the release; pull it, or make it, when it is not there."""
    pulled, made = f"debian:{release}-slim", made_image(release)
    for name in (pulled, made):
        if succeeds([*docker, "image", "inspect", name]):
            return name
    if succeeds([*docker, "pull", "-q", pulled], timeout=_PULL_TIMEOUT):
        return pulled
    say(f"no registry is reachable: making the base image with debootstrap ({release})")
    _make(docker, release, made, folder)
    return made


def _make(docker: Sequence[str], release: str, name: str, folder: Path) -> None:
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise LabError("no registry is reachable, and only root, with debootstrap, can do without")
    with tempfile.TemporaryDirectory(prefix="base-", dir=folder) as root:
        run(["debootstrap", "--variant=minbase", release, root, MIRROR], timeout=_MAKE_TIMEOUT)
        excluded = [f"--exclude={path}" for path in _LEFT_OUT]
        with subprocess.Popen(
            ["tar", "-C", root, *excluded, "-c", "."], stdout=subprocess.PIPE
        ) as tar:
            done = subprocess.run(
                [*docker, "import", "-", name],
                stdin=tar.stdout,
                capture_output=True,
                timeout=_MAKE_TIMEOUT,
                check=False,
            )
    if tar.returncode or done.returncode:
        raise LabError(f"docker import: {done.stderr.decode('utf-8', 'replace').strip()}")
