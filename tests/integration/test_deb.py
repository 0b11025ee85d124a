"""The Debian package in a clean Debian: installed, upgraded, removed, purged.

It takes a minute more than debootstrap, and a mirror.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from apiban.lab.base import RELEASES, debootstrap_command
from apiban.trial.kamailio import SCRIPT

from tests.support.api import KEY, Api
from tests.support.network import outer_network

pytestmark = [pytest.mark.kamailio, pytest.mark.timeout(600)]

PROJECT = SCRIPT.parents[1]
NEXT = "99.1"
STATE, SETTINGS = "/var/lib/apiban", "/etc/apiban/apiban.toml"
# Shell words that let a command of ours run as the firewall's service does.
AS_SERVICE = (
    "setpriv --reuid=apiban --regid=apiban --init-groups --bounding-set=-all,+net_admin"
    " --inh-caps=-all,+net_admin --ambient-caps=-all,+net_admin --no-new-privs"
)


def build(folder: Path, *words: str) -> Path:
    """Build the package from the files as they are."""
    done = subprocess.run(
        [PROJECT / "bin/deb", "--dirty", *words, folder],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


class Machine:
    """A root of Debian; nothing that is installed in it starts a service."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(
        self, script: str, *, network: bool = False, fails: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a script as root, in a network of its own unless it needs this process's."""
        inside = [
            *("env", "-i", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"),
            *("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "bash", "-c", script),
        ]
        root = shlex.quote(str(self.root))
        # Only a mount point can be the root of who makes mounts in there.
        enter = f"mount --bind {root} {root}; mount -t proc proc {root}/proc; exec chroot {root} "
        done = subprocess.run(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
                *([] if network else ["--net"]),
                *("bash", "-c", enter + shlex.join(inside)),
            ],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if not fails:
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done

    def put(self, file: Path) -> str:
        """Copy a file in, and give its path there."""
        shutil.copy(file, self.root / "root")
        return f"/root/{file.name}"

    def path(self, name: str) -> Path:
        """Give where a path of the machine is on the host."""
        return self.root / name.lstrip("/")

    def status(self) -> str:
        """Give what dpkg says of the package: "installed", "config-files", or nothing."""
        done = self.run("dpkg-query -W -f '${db:Status-Status}' apiban", fails=True)
        return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give two builds, of which the second one is newer."""
    folder = tmp_path_factory.mktemp("deb")
    return build(folder), build(folder, "--version", NEXT)


@pytest.fixture(scope="module")
def clean(
    tmp_path_factory: pytest.TempPathFactory, packages: tuple[Path, Path]
) -> Iterator[Machine]:
    """Give a machine where the package was installed once, by apt with what it depends on."""
    root = tmp_path_factory.mktemp("root") / RELEASES[0]
    with outer_network():
        made = subprocess.run(
            debootstrap_command(RELEASES[0], root),
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
    assert made.returncode == 0, made.stdout[-2000:]
    machine = Machine(root)
    policy = machine.path("/usr/sbin/policy-rc.d")
    policy.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    policy.chmod(0o755)
    for name in ("/etc/resolv.conf", "/etc/hosts"):
        shutil.copy(name, machine.path(name))
    for file in Path("/etc/apt/apt.conf.d").glob("*proxy*"):
        shutil.copy(file, machine.path("/etc/apt/apt.conf.d"))
    with outer_network():  # the mirror is there
        machine.run(
            "apt-get update -q && apt-get install -q -y --no-install-recommends nftables "
            + machine.put(packages[0]),
            network=True,
        )
    machine.put(packages[1])
    yield machine
    shutil.rmtree(root)


@pytest.fixture
def machine(clean: Machine, packages: tuple[Path, Path]) -> Iterator[Machine]:
    """Give the machine with the older build freshly installed; it is purged afterwards."""
    clean.run(f"dpkg --purge apiban; dpkg -i /root/{packages[0].name}")
    yield clean
    clean.run("dpkg --purge apiban; ! getent passwd kamailio || deluser --quiet kamailio")


def test_same_bytes(tmp_path: Path) -> None:
    """One commit gives the same bytes each time; what is not committed is refused."""
    copy = tmp_path / "copy"
    git = "git -c user.name=test -c user.email=test@example"
    script = (
        f"mkdir {copy}; git ls-files -z -co --exclude-standard | "
        f"tar --null --ignore-failed-read -T - -c 2>/dev/null | tar -x -C {copy};"
        f"cd {copy}; git init -q; git add -A; {git} commit -q -m all"
    )
    subprocess.run(["bash", "-ec", script], cwd=PROJECT, timeout=60, check=True)
    digests = []
    for name, umask in (("first", 0o022), ("second", 0o077)):
        done = subprocess.run(
            [copy / "bin/deb", tmp_path / name],
            capture_output=True,
            text=True,
            umask=umask,
            timeout=60,
            check=True,
        )
        digests.append(hashlib.sha256(Path(done.stdout.strip()).read_bytes()).digest())
    assert digests[0] == digests[1]
    (copy / "README.md").write_text("changed", encoding="utf-8")
    refused = subprocess.run([copy / "bin/deb", tmp_path], capture_output=True, check=False)
    assert (refused.returncode, refused.stdout) == (1, b"")


@pytest.mark.parametrize("version", ["1/2", "1&2", "", "a1", "1-", "1 2", "1\n2", "1:2"])
def test_version_that_is_none(version: str, tmp_path: Path) -> None:
    """One line says which form it has, and nothing is built."""
    done = subprocess.run(
        [PROJECT / "bin/deb", "--dirty", "--version", version, tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (2, "", [])
    (line,) = done.stderr.splitlines()
    assert line.startswith("bin/deb: --version wants ")


def test_lintian(packages: tuple[Path, Path]) -> None:
    """Debian's checker finds nothing to warn of."""
    done = subprocess.run(
        ["lintian", "--fail-on", "error,warning", packages[0]],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_depends_on_nothing_but_debian(machine: Machine) -> None:
    """The command works, with Debian's Python packages; what needs others says so in one line."""
    assert machine.run("apiban --version").stdout.startswith("apiban, version ")
    assert machine.run("apiban -t").stdout == f"{SETTINGS}: good\n"
    missing = machine.run("apiban feed serve", fails=True)
    assert missing.returncode == 1
    (line,) = missing.stderr.splitlines()
    assert line.startswith("apiban: serve needs ")


def test_folders_belong_to_the_services(machine: Machine) -> None:
    """The services' user owns the folders, and may read the settings, which others may not."""
    names = f"{STATE} /run/apiban {SETTINGS}"
    assert machine.run(f"stat -c '%U:%G %a' {names}").stdout.split("\n")[:3] == [
        "apiban:apiban 2770",
        "apiban:apiban 2770",
        "root:apiban 640",
    ]


def test_nothing_starts_by_itself(machine: Machine) -> None:
    """The units are there, and none is enabled: a firewall is nothing to be surprised by."""
    assert machine.path("/usr/lib/systemd/system/apiban-firewall.service").is_file()
    assert machine.path("/usr/lib/systemd/system/apiban-sync.service").is_file()
    assert list(machine.path("/etc/systemd/system").rglob("apiban*")) == []


def test_shells_and_man_find_it(machine: Machine) -> None:
    """Completion is loaded from the place where bash looks, and the manual pages are there."""
    file = "/usr/share/bash-completion/completions/apiban"
    assert "_apiban" in machine.run(f"source {file} && complete -p apiban").stdout
    assert machine.path("/usr/share/man/man1/apiban-sync.1.gz").is_file()


def test_list_of_a_feed_gets_into_the_kernel(machine: Machine) -> None:
    """The sync asks a feed with the key of a file; the firewall client enforces the answer."""
    key = machine.path("/etc/apiban/key")
    key.write_text(f"{KEY}\n", encoding="ascii")
    api = Api(["192.0.2.5", "192.0.2.6"])
    try:
        machine.run(
            "chgrp apiban /etc/apiban/key && chmod 0640 /etc/apiban/key && runuser -u apiban -- env"
            f" APIBAN_FEED_KEY_FILE=/etc/apiban/key APIBAN_FEED_URL={api.url} apiban sync",
            network=True,
        )
    finally:
        api.stop()
    rules = machine.run(f"{AS_SERVICE} apiban firewall once >&2 && nft list ruleset").stdout
    assert "192.0.2.5" in rules
    assert "192.0.2.6" in rules


def test_upgrade(machine: Machine, packages: tuple[Path, Path]) -> None:
    """An upgrade keeps edited settings, the state, and what protects."""
    file = machine.path(SETTINGS)
    edited = file.read_text(encoding="utf-8") + "[log]\ninterval = 77\n"
    file.write_text(edited, encoding="utf-8")
    done = machine.run(
        "runuser -u apiban -- apiban ban 192.0.2.9 --no-wait >&2; apiban firewall once >&2;"
        f"dpkg -i /root/{packages[1].name} >&2; nft list ruleset;"
        "dpkg-query -W -f 'now ${Version}' apiban; apiban list"
    ).stdout
    assert f"now {NEXT}" in done
    assert done.count("192.0.2.9") == 2
    assert file.read_text(encoding="utf-8") == edited
    assert machine.run(f"stat -c '%U:%G %a' {SETTINGS}").stdout == "root:apiban 640\n"


def test_remove_and_install_again(machine: Machine, packages: tuple[Path, Path]) -> None:
    """Removed, it leaves no rule in the kernel, and keeps settings and state for another time."""
    done = machine.run(
        "runuser -u apiban -- apiban ban 192.0.2.9 --no-wait >&2; apiban firewall once >&2;"
        "nft list tables; dpkg -r apiban >&2; echo removed; nft list tables"
    ).stdout
    before, after = done.split("removed\n")
    assert "apiban" in before
    assert after == ""
    assert machine.status() == "config-files"
    assert not machine.path("/usr/lib/apiban").exists()
    assert machine.path(f"{STATE}/store.db").is_file()
    assert machine.path(SETTINGS).is_file()
    assert "192.0.2.9" in machine.run(f"dpkg -i /root/{packages[0].name} >&2; apiban list").stdout


def test_purge(machine: Machine) -> None:
    """Purged, nothing is left but the user, who may own files elsewhere."""
    machine.run(
        "runuser -u apiban -- apiban ban 192.0.2.9 --no-wait; echo sesame >/etc/apiban/key;"
        "dpkg --purge apiban"
    )
    assert machine.status() in {"", "not-installed"}
    for name in ("/usr/lib/apiban", "/usr/bin/apiban", STATE, "/etc/apiban", "/run/apiban"):
        assert not machine.path(name).exists(), name
    assert "apiban" in machine.run("getent passwd apiban").stdout


def test_purge_leaves_what_is_not_ours(machine: Machine) -> None:
    """The settings of a feed that runs from the repository stay; our key does not."""
    machine.run(
        "echo '# theirs' >/etc/apiban/feed.toml; echo sesame >/etc/apiban/key; dpkg --purge apiban"
    )
    folder = machine.path("/etc/apiban")
    assert [one.name for one in folder.iterdir()] == ["feed.toml"]
    shutil.rmtree(folder)


def test_drop_in_that_is_left_is_named(machine: Machine) -> None:
    """Kamailio starts without the package, too, and the removal says what stays."""
    drop_in = "/etc/systemd/system/kamailio.service.d/apiban.conf"
    remove = "dpkg -r apiban 2>&1 >/dev/null"
    machine.run(f"install -D -m 0644 /usr/lib/apiban/kamailio/systemd/apiban.conf {drop_in}")
    said = machine.run(remove).stdout
    assert f"apiban: {drop_in} stays" in said
    machine.path(drop_in).unlink()


def test_tmpfiles_of_the_administrator_stay(machine: Machine, packages: tuple[Path, Path]) -> None:
    """An upgrade writes the file beside Kamailio only where there is none."""
    file = "/etc/tmpfiles.d/apiban.conf"
    mine = "d /run/apiban 2775 kamailio kamailio -\n"
    machine.run(
        "adduser --quiet --system --group --no-create-home --home /run/kamailio kamailio;"
        f"dpkg -i /root/{packages[0].name}"
    )
    assert machine.path(file).read_text() == "d /run/apiban 2770 kamailio kamailio -\n"
    machine.path(file).write_text(mine)
    machine.run(f"dpkg -i /root/{packages[1].name}")
    assert machine.path(file).read_text() == mine


def test_kamailio_comes_later(machine: Machine) -> None:
    """When Kamailio is installed, the folders and the settings become its own; both users work."""
    done = machine.run(
        "runuser -u apiban -- apiban ban 192.0.2.9 --no-wait >&2;"
        "adduser --quiet --system --group --no-create-home --home /run/kamailio kamailio;"
        "dpkg-trigger --by-package=kamailio --no-await /usr/sbin/kamailio;"
        "dpkg --triggers-only apiban >&2;"
        f"stat -c '%U:%G' {STATE} {STATE}/store.db /run/apiban {SETTINGS};"
        "cat /etc/tmpfiles.d/apiban.conf;"
        "runuser -u kamailio -- apiban ban 192.0.2.10 --no-wait >&2;"
        "runuser -u apiban -- apiban ban 192.0.2.11 --no-wait >&2"
    ).stdout.splitlines()
    assert done[:4] == [*["kamailio:kamailio"] * 3, "root:kamailio"]
    assert done[4] == "d /run/apiban 2770 kamailio kamailio -"
    assert machine.run("apiban list").stdout.count("192.0.2.") == 3
