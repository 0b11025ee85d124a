"""Compose in its two versions, the daemon's command line, the base image's release."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from apiban.lab.base import debootstrap_command, host_release, own_image
from apiban.lab.command import LabError, run, succeeds
from apiban.lab.compose import choose_compose
from apiban.lab.daemon import Daemon, daemon_command
from apiban.lab.lab import default_folder, project_name

V1 = "docker-compose version 1.29.2, build unknown\ndocker-py version: 5.0.3\n"
V2 = "Docker Compose version 2.26.1-4\n"


@pytest.mark.parametrize(
    ("plugin", "program", "words", "version"),
    [
        (None, V1, ("docker-compose",), 1),
        (V2, None, ("docker", "compose"), 2),
        (V2, V1, ("docker", "compose"), 2),
        ("", V2, ("docker-compose",), 2),
        ("Docker Compose version v2.40.3", None, ("docker", "compose"), 2),
        ("Docker Compose version v2.26.1\n", V1, ("docker", "compose"), 2),
        ("Docker Compose version v5.0.1\n", V1, ("docker", "compose"), 5),
        (None, "Docker Compose version v5.1.2\n", ("docker-compose",), 5),
        (None, "docker-compose version 1.29.2, build 5becea4c\n", ("docker-compose",), 1),
    ],
)
def test_the_version_is_what_it_says(
    plugin: str | None, program: str | None, words: tuple[str, ...], version: int
) -> None:
    """The plugin is taken before the program, and either may be either version."""
    found = choose_compose(plugin, program)
    assert (found.words, found.version) == (words, version)


def test_without_compose_it_says_so() -> None:
    """Neither is there: one line says what to install."""
    with pytest.raises(LabError, match="neither docker compose nor docker-compose"):
        choose_compose(None, "bash: docker-compose: command not found")


def test_command_lines() -> None:
    """Version 1 builds with BuildKit and in parallel; files and the project are named."""
    one, two = choose_compose(None, V1), choose_compose(V2, None)
    assert one.command("lab", ["a.yml", "b.yml"], "up", "-d") == [
        *("docker-compose", "-p", "lab", "-f", "a.yml", "-f", "b.yml", "up", "-d")
    ]
    assert two.command("lab", ["a.yml"], "down")[:4] == ["docker", "compose", "-p", "lab"]
    assert one.build == ("build", "--parallel")
    assert one.environ["DOCKER_BUILDKIT"] == "1"
    five = choose_compose("Docker Compose version v5.0.1", None)
    for later in (two, five):
        assert (later.build, later.environ) == (("build",), {})


def test_the_daemon_has_all_in_its_folder() -> None:
    """Its files are below the lab's folder; only the one that runs the lab has its own network."""
    folder = Path("/lab/apiban-lab-1")
    build, play = (daemon_command(folder, isolated=one) for one in (False, True))
    for words in (build, play):
        paths = [word for word in words if word.startswith(("/", "unix:"))]
        assert len(paths) == 5
        assert all("/lab/apiban-lab-1/" in path for path in paths)
        assert words[words.index("--cgroup-parent") + 1] == "apiban-lab-1"
        assert {"--mount", "--pid", "--kill-child"} <= set(words)
    assert "--net" in play
    assert "--iptables=false" not in play  # the rules are in the network of its own
    assert "--net" not in build
    assert {"--iptables=false", "--ip-forward=false"} <= set(build)


def test_another_process_is_not_the_daemon(tmp_path: Path) -> None:
    """A process id that is somebody else's by now is never ended."""
    (tmp_path / "unshare.pid").write_text(str(os.getpid()))
    daemon = Daemon(tmp_path)
    assert not daemon.own
    daemon.stop()
    assert daemon.docker() == ["docker"]


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("VERSION_CODENAME=trixie\n", "trixie"),
        ('ID=debian\nVERSION_CODENAME="bookworm"\n', "bookworm"),
        ("VERSION_CODENAME=noble\n", "bookworm"),
        ("", "bookworm"),
    ],
)
def test_the_release_is_the_hosts(text: str, release: str) -> None:
    """The images are of the host's Debian, and of Debian 12 elsewhere."""
    assert host_release(text) == release


def test_each_copy_has_a_lab_of_its_own() -> None:
    """Two copies of the repository do not take each other's lab; LAB_STATE chooses its folder."""
    one, other = project_name(Path("/srv/one")), project_name(Path("/srv/other"))
    assert one != other
    assert one.startswith("apiban-lab-")
    assert default_folder(Path("/srv/one"), {}) == Path("/var/tmp") / one
    assert default_folder(Path("/srv/one"), {"LAB_STATE": "/x"}) == Path("/x") / one
    assert own_image("trixie", one) != own_image("trixie", other)


def test_debootstrap_keeps_its_mounts_to_itself() -> None:
    """Its mounts and its processes end with what is killed when it takes too long."""
    words = debootstrap_command("trixie", Path("/x"))
    unshare = words[: words.index("debootstrap")]
    assert unshare[0] == "unshare"
    assert {"--mount", "--pid", "--fork", "--kill-child"} <= set(unshare)


def test_commands_fail_in_one_line() -> None:
    """What failed, is missing, or takes too long is said with the command."""
    assert run(["cat"], text="as it is") == "as it is"
    with pytest.raises(LabError, match=r"status 3: one \| two"):
        run(["sh", "-c", "echo one >&2; echo two >&2; exit 3"])
    with pytest.raises(LabError, match="no-such-program: No such file"):
        run(["no-such-program"])
    with pytest.raises(LabError, match=r"did not end within 0\.1 s"):
        run(["sleep", "5"], timeout=0.1)
    assert not succeeds(["false"])
