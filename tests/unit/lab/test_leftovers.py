"""What Docker and its daemon leave behind is taken away when it is the lab's, and only then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from apiban.lab import daemon
from apiban.lab.base import base_image

# A docker that notes what it is told; it has the images whose names are files.
DOCKER = """\
#!/bin/sh
cd "$(dirname "$0")" && echo "$*" >> told
case $1 in
  image) [ "$2" = rm ] || [ -e "$3" ] ;;
esac
"""


@pytest.mark.parametrize(
    ("was_there", "told"),
    [
        (False, ["pull -q", "tag", "image rm"]),
        (True, ["tag"]),
    ],
)
def test_a_pulled_image_keeps_our_name_alone(
    tmp_path: Path,
    was_there: bool,  # noqa: FBT001
    told: list[str],
) -> None:
    """It is tagged for the project; the public name goes, unless it was there before."""
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    if was_there:
        (tmp_path / "debian:trixie-slim").touch()
    assert (
        base_image([str(docker)], "trixie", "lab-1", tmp_path, print) == "apiban-base:lab-1-trixie"
    )
    lines = (tmp_path / "told").read_text().splitlines()
    done = [line for line in lines if not line.startswith("image inspect")]
    ends = {
        "pull -q": "debian:trixie-slim",
        "tag": "debian:trixie-slim apiban-base:lab-1-trixie",
        "image rm": "debian:trixie-slim",
    }
    assert done == [f"{one} {ends[one]}" for one in told]


@pytest.mark.parametrize(("now", "stays"), [("ours", False), ("another", True)])
def test_the_key_that_our_daemon_made_goes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    now: str,
    stays: bool,  # noqa: FBT001
) -> None:
    """It is removed while it is that one; another's, and one that was there before, stay."""
    key, folder = tmp_path / "etc" / "key.json", tmp_path / "lab"
    folder.mkdir()
    key.parent.mkdir()
    key.write_text(now)
    monkeypatch.setattr(daemon, "_KEY", key)
    monkeypatch.setattr(daemon, "_EMPTY", ())
    daemon.Daemon(folder).end()  # it was there before: none was noted
    assert key.exists()
    (folder / "key.json").write_text("ours")
    daemon.Daemon(folder).end()
    assert key.parent.exists() is stays
    assert os.listdir(folder) == []  # noqa: PTH208
