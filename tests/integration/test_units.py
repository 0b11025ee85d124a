"""The systemd units: what systemd itself says of them, and that their sandbox lets them work.

No systemd runs here: ``systemd-analyze`` reads the units in a root that holds what they name, and
the firewall's command runs with the unit's user, capabilities and umask in a network of its own.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apiban.trial.kamailio import SCRIPT

pytestmark = pytest.mark.kamailio

PROJECT = SCRIPT.parents[1]
UNITS = PROJECT / "kamailio/systemd"
HOST_UNITS = Path("/lib/systemd/system")
APIBAN = PROJECT / "bin/apiban"
NOBODY = 65534
# What MemoryDenyWriteExecute does, for a command; an older kernel lets it pass.
NO_NEW_CODE = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""

# systemd's figure for what a unit may still do, from 0 to 10, as it was measured.
EXPOSURE = {
    "apiban-sync": 1.5,
    "apiban-firewall": 1.3,
    "apiban-feed": 1.6,
    "apiban-honeypot": 3.6,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a root with the host's own units, ours, and what ours name."""
    units = tmp_path / "usr/lib/systemd/system"
    shutil.copytree(HOST_UNITS, units, symlinks=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    for unit in UNITS.glob("*.service"):
        shutil.copy(unit, units)
    for program in (
        *("usr/lib/apiban/bin/apiban", "usr/lib/apiban/bin/check-settings"),
        *("usr/sbin/kamailio", "bin/sh", "bin/kill"),
    ):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / program).touch(mode=0o755)
    return tmp_path


def analyze(*words: str, root: Path) -> subprocess.CompletedProcess[str]:
    """Let systemd-analyze look at units in a root."""
    return subprocess.run(
        ["systemd-analyze", f"--root={root}", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def drop_in(name: str, unit: str, root: Path) -> None:
    """Put a drop-in of ours where an administrator would."""
    folder = root / f"etc/systemd/system/{unit}.d"
    folder.mkdir(parents=True)
    shutil.copy(UNITS / name, folder)


def values(unit: str, option: str) -> list[str]:
    """Give the values of an option in a unit of ours."""
    lines = (UNITS / unit).read_text(encoding="utf-8").splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{option}=")]


@pytest.mark.parametrize("unit", sorted(EXPOSURE))
def test_unit_is_valid(unit: str, root: Path) -> None:
    """Systemd has nothing to say against a unit."""
    done = analyze("verify", "--man=no", f"{unit}.service", root=root)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("apiban.conf", "kamailio.service"),
        ("apiban-firewall-ipset.conf", "apiban-firewall.service"),
    ],
)
def test_drop_in_is_valid(name: str, unit: str, root: Path) -> None:
    """A drop-in fits to its unit: Kamailio's is that of Debian's package."""
    drop_in(name, unit, root)
    done = analyze("verify", "--man=no", unit, root=root)
    assert (done.returncode, done.stderr) == (0, "")


def test_mistakes_are_found(root: Path) -> None:
    """What the tests above ask would notice a program that is not there."""
    (root / "usr/lib/apiban/bin/apiban").unlink()
    assert analyze("verify", "--man=no", "apiban-sync.service", root=root).returncode != 0


@pytest.mark.parametrize(("unit", "exposure"), EXPOSURE.items())
def test_exposure(unit: str, exposure: float, root: Path) -> None:
    """No unit is more exposed than it was."""
    done = analyze(
        *("security", "--offline=true", f"--threshold={round(exposure * 10)}"),
        f"{unit}.service",
        root=root,
    )
    assert done.returncode == 0, done.stdout.splitlines()[-1]
    assert f"exposure level for {unit}.service: " in done.stdout


@pytest.mark.parametrize("unit", ["apiban-sync", "apiban-firewall"])
def test_unit_keeps_no_privilege_but_its_own(unit: str) -> None:
    """The sync has no capability at all, and the firewall client CAP_NET_ADMIN alone."""
    wanted = {"apiban-sync": "", "apiban-firewall": "CAP_NET_ADMIN"}[unit]
    assert values(f"{unit}.service", "CapabilityBoundingSet") == [wanted]
    assert values(f"{unit}.service", "AmbientCapabilities") == [wanted]
    assert values(f"{unit}.service", "User") == ["apiban"]


def test_ipset_lock_is_readable_before_the_list_is_put() -> None:
    """A drop-in's commands come after the unit's: this one begins anew, and ends as the unit's."""
    first, lock, *rest = values("apiban-firewall-ipset.conf", "ExecStartPre")
    assert first == ""
    assert lock.startswith("+/bin/sh ")
    assert "/run/xtables.lock" in lock
    assert rest == values("apiban-firewall.service", "ExecStartPre")


def test_firewall_starts_after_others() -> None:
    """What may flush the rules at the boot does so before ours are there."""
    after = " ".join(values("apiban-firewall.service", "After")).split()
    others = {"nftables", "netfilter-persistent", "ufw", "firewalld"}
    assert {f"{one}.service" for one in others} <= set(after)


@pytest.mark.parametrize(("checker", "status"), [(None, 0), ("true", 0), ("false", 3)])
def test_kamailio_starts_without_apiban(checker: str | None, status: int, tmp_path: Path) -> None:
    """Bad settings stop the start; a drop-in that was left behind does not."""
    installed = "/usr/lib/apiban/bin/check-settings"
    (line,) = values("apiban.conf", "ExecStartPre")
    assert line.count(installed) == 2
    if checker:
        (tmp_path / "check").write_text(f"#!/bin/sh\n{checker} || exit 3\n", encoding="utf-8")
        (tmp_path / "check").chmod(0o755)
    words = shlex.split(line.replace(installed, str(tmp_path / "check")))
    done = subprocess.run(words, capture_output=True, timeout=10, check=False)
    assert (done.returncode, done.stderr) == (status, b"")


def test_sync_reads_the_key_as_a_credential() -> None:
    """The settings find the key where systemd puts it, and nothing else names it."""
    (credential,) = values("apiban-sync.service", "LoadCredential")
    name, _, file = credential.partition(":")
    assert f"APIBAN_FEED_KEY_FILE=%d/{name}" in values("apiban-sync.service", "Environment")
    assert values("apiban-sync.service", "AssertPathExists") == [file]


# The sandbox, as far as it goes without systemd ---------------------------------------------------


class Confined:
    """Folders for the services' user, and commands that run as the units run them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("state", "runtime"):
            (folder / name).mkdir()
            os.chown(folder / name, NOBODY, NOBODY)
            (folder / name).chmod(0o2770)
        self.settings = folder / "apiban.toml"
        self.write("")

    def write(self, more: str) -> None:
        """Write the settings."""
        paths = f'state = "{self.folder}/state"\nruntime = "{self.folder}/runtime"'
        self.settings.write_text(f"{more}\n[paths]\n{paths}\n", encoding="utf-8")
        self.settings.chmod(0o640)
        os.chown(self.settings, 0, NOBODY)

    def apiban(self, unit: str, *words: str, drop_in: str = "", **more: str) -> str:
        """Give the shell's words for a command as a unit runs it, with a drop-in of it."""
        files = [f"{unit}.service", *([drop_in] if drop_in else [])]
        lines = [line for file in files for line in values(file, "AmbientCapabilities")]
        names = " ".join(lines).lower().split()
        caps = ",".join(["-all", *(f"+{name.removeprefix('cap_')}" for name in names)])
        environment = [
            one
            for line in values(f"{unit}.service", "Environment")
            for one in line.split()
            if "%" not in one
        ]
        return " ".join(
            [
                f"umask {values(f'{unit}.service', 'UMask')[0]};",
                *("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *environment),
                *(f"{name}={text}" for name, text in more.items()),
                f"APIBAN_SETTINGS={self.settings}",
                *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
                *(f"--bounding-set={caps}", f"--inh-caps={caps}", f"--ambient-caps={caps}"),
                *("--no-new-privs", "/usr/bin/python3", "-c", f"'{NO_NEW_CODE}'"),
                *(str(APIBAN), *words),
            ]
        )


@pytest.fixture
def confined() -> Iterator[Confined]:
    """Give folders that other users than root can reach."""
    with tempfile.TemporaryDirectory(prefix="apiban-units-") as folder:
        Path(folder).chmod(0o755)
        yield Confined(Path(folder))


def in_own_network(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a network of its own."""
    return subprocess.run(
        ["unshare", "--net", "bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def held(document: str) -> set[str]:
    """Give the addresses in nft's JSON."""
    parts: list[dict[str, Any]] = json.loads(document)["nftables"]
    elements = [one for part in parts for one in part.get("set", {}).get("elem", [])]
    return {str(one["elem"]["val"] if isinstance(one, dict) else one) for one in elements}


def test_firewall_works_confined(confined: Confined) -> None:
    """With the unit's user and its one capability the list gets into the kernel."""
    done = in_own_network(
        f"set -e; ({confined.apiban('apiban-sync', 'ban', '192.0.2.66', '--no-wait')}) >&2;"
        f"({confined.apiban('apiban-firewall', 'firewall', 'once')}) >&2;"
        "nft -j list ruleset"
    )
    assert done.returncode == 0, done.stderr
    assert "192.0.2.66" in held(done.stdout)


def test_ipset_works_confined(confined: Confined) -> None:
    """With the capabilities of its drop-in the ipset backend does the same."""
    confined.write('[firewall]\nbackend = "ipset"\n')
    once = confined.apiban(
        *("apiban-firewall", "firewall", "once"), drop_in="apiban-firewall-ipset.conf"
    )
    done = in_own_network(
        f"set -e; ({confined.apiban('apiban-sync', 'ban', '192.0.2.66', '--no-wait')}) >&2;"
        f"({once}) >&2; ipset save; iptables -S"
    )
    assert done.returncode == 0, done.stderr
    assert " 192.0.2.66 " in done.stdout
    assert "--match-set apiban" in done.stdout


def test_firewall_without_its_capability(confined: Confined) -> None:
    """Without the capability it says so in one line, and touches nothing."""
    done = in_own_network(
        f"({confined.apiban('apiban-sync', 'ban', '192.0.2.66', '--no-wait')}) >/dev/null 2>&1;"
        f"{confined.apiban('apiban-sync', 'firewall', 'once')}; echo status $?;"
        "nft list ruleset"
    )
    assert done.stdout.splitlines()[-1] == "status 1", done.stdout
    (line,) = done.stderr.splitlines()
    assert "CAP_NET_ADMIN" in line


def test_firewall_is_not_bothered_by_keys(confined: Confined) -> None:
    """Keys that are closed to its user do not hinder the firewall client."""
    secret = confined.folder / "key"
    secret.write_text("sesame", encoding="utf-8")
    secret.chmod(0o600)
    confined.write(
        f'[feed]\nkey_file = "{secret}"\n'
        f'[report]\nurl = "https://feed.example/"\nkey_file = "{secret}"\n'
    )
    done = in_own_network(confined.apiban("apiban-firewall", "config", "check"))
    assert done.returncode == 0, done.stderr
    assert in_own_network(confined.apiban("apiban-sync", "config", "check")).returncode == 1


def test_credential_is_read(confined: Confined) -> None:
    """A credential's file, which is its reader's alone, is a good key file."""
    credential = confined.folder / "apiban-key"
    credential.write_text("sesame\n", encoding="utf-8")
    os.chown(credential, NOBODY, NOBODY)
    credential.chmod(0o400)
    done = in_own_network(
        confined.apiban("apiban-sync", "config", "check", APIBAN_FEED_KEY_FILE=str(credential))
    )
    assert (done.returncode, done.stderr) == (0, "")
