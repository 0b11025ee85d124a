"""fail2ban and us: its bans become ours, and what our detector found can become its."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from apiban.address import parse_network
from apiban.store import LOCAL, OPERATOR, Entry, Store

from tests.support.node import wait_for
from tests.support.prom import ROOT

pytestmark = [
    pytest.mark.skipif(shutil.which("fail2ban-server") is None, reason="Debian's fail2ban has it"),
    pytest.mark.timeout(120),
]

OURS = ROOT / "kamailio" / "fail2ban"
STOCK = Path("/etc/fail2ban")
BAD, GOOD, OTHER = "198.51.100.7", "198.51.100.8", "198.51.100.9"
LINE = (
    "Nov 22 13:44:48 pbx {who}[1720]: NOTICE: <core> [core/kemi.c:126]: sr_kemi_core_notice(): "
    "apiban: event=detected source={source} rule=failures count=5 window=300.0 ban_for=3600.0 "
    "proof=nonce"
)


class Fail2ban:
    """A fail2ban with all of its files in one folder, and one jail that bans by our action."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state, self.runtime = folder / "state", folder / "runtime"
        self.log = folder / "fail2ban.log"
        self._server: subprocess.Popen[bytes] | None = None
        for path in (self.state, self.runtime, folder / "conf" / "action.d"):
            path.mkdir(parents=True)
        (folder / "conf" / "filter.d").mkdir()
        (folder / "apiban.toml").write_text(
            f'paths.state = "{self.state}"\npaths.runtime = "{self.runtime}"\n', encoding="utf-8"
        )
        program = folder / "apiban"
        program.write_text(
            f'#!/bin/sh\nexec {sys.executable} -m apiban.cli "$@"\n', encoding="utf-8"
        )
        program.chmod(0o755)
        (folder / "conf" / "action.d" / "apiban.conf").symlink_to(OURS / "action.d" / "apiban.conf")
        (folder / "conf" / "filter.d" / "quiet.conf").write_text(
            "[Definition]\nfailregex = ^never <HOST>$\n", encoding="utf-8"
        )
        (folder / "watched").touch()
        (folder / "conf" / "fail2ban.conf").write_text(
            f"[Definition]\nloglevel = INFO\nlogtarget = {self.log}\nsyslogsocket = auto\n"
            f"socket = {folder / 'f.sock'}\npidfile = {folder / 'f.pid'}\n"
            f"dbfile = {folder / 'f.db'}\ndbpurgeage = 1d\n",
            encoding="utf-8",
        )
        (folder / "conf" / "jail.conf").write_text(
            "[sip]\nenabled = true\nfilter = quiet\nbackend = polling\n"
            f"logpath = {folder}/watched\nbantime = 600\naction = apiban[apiban={program}]\n",
            encoding="utf-8",
        )

    @property
    def environ(self) -> dict[str, str]:
        """The environment of its actions: our settings."""
        kept = {name: text for name, text in os.environ.items() if not name.startswith("APIBAN")}
        return {**kept, "APIBAN_SETTINGS": str(self.folder / "apiban.toml")}

    def start(self) -> None:
        """Start the server."""
        self._server = subprocess.Popen(
            ["fail2ban-server", "-f", "-c", self.folder / "conf", "--logtarget", self.log, "start"],
            env=self.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(lambda: self.client("status", "sip", check=False), "fail2ban", 30)

    def client(self, *words: str, check: bool = True) -> str:
        """Ask the server, and give its answer."""
        done = subprocess.run(
            ["fail2ban-client", "-s", self.folder / "f.sock", *words],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 0 or not check, done.stderr + done.stdout
        return done.stdout if done.returncode == 0 else ""

    def stop(self) -> None:
        """End the server by its id, if it runs."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait(30)
            self._server = None

    def apiban(self, *words: str) -> Any:
        """Run a verb of ours."""
        done = subprocess.run(
            [sys.executable, "-m", "apiban.cli", *words, "--json"],
            env=self.environ, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode in {0, 3}, done.stderr
        return json.loads(done.stdout)

    def entries(self, address: str) -> Sequence[Entry]:
        """Give what our store says of an address."""
        with Store(self.state / "store.db") as store:
            return store.find(parse_network(address))

    def logged(self) -> str:
        """Give fail2ban's log."""
        return self.log.read_text(encoding="utf-8")


@pytest.fixture
def fail2ban(tmp_path: Path) -> Iterator[Fail2ban]:
    """Give a fail2ban that runs beside a store of ours."""
    made = Fail2ban(tmp_path)
    Store(made.state / "store.db").close()
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_its_ban_is_ours_until_its_unban(fail2ban: Fail2ban) -> None:
    """With its end, and its jail as the reason; of both families."""
    for address in (BAD, "2001:db8::7"):
        fail2ban.client("set", "sip", "banip", address)
        wait_for(lambda one=address: fail2ban.entries(one), "the ban", 20)
        (entry,) = fail2ban.entries(address)
        assert (entry.source, entry.reason) == (LOCAL, "fail2ban sip")
        assert entry.expires - entry.last_listed == 600
        assert fail2ban.apiban("check", address)["banned"] is True
        fail2ban.client("set", "sip", "unbanip", address)
        wait_for(lambda one=address: not fail2ban.entries(one), "the unban", 20)
    assert fail2ban.apiban("allow", "list") is not None
    with Store(fail2ban.state / "store.db") as store:
        assert store.allow_list() == []


def test_allowed_source_is_refused_and_it_goes_on(fail2ban: Fail2ban) -> None:
    """A line of ours in its log; the next one is banned."""
    with Store(fail2ban.state / "store.db") as store:
        store.allow([parse_network(GOOD)], reason="carrier", now=1.0, expires=None, source=OPERATOR)
    fail2ban.client("set", "sip", "banip", GOOD)
    wait_for(lambda: "is never banned" in fail2ban.logged(), "the refusal", 20)
    fail2ban.client("set", "sip", "banip", BAD)
    wait_for(lambda: fail2ban.entries(BAD), "the ban", 20)
    assert fail2ban.entries(GOOD) == []
    # fail2ban tries what failed once more; each try is one line of ours.
    assert fail2ban.logged().count(f"apiban: {GOOD} is never banned") == 2
    assert "Traceback" not in fail2ban.logged()


def test_operators_word_goes_before_its(fail2ban: Fail2ban) -> None:
    """A longer ban of his stays through its ban and unban, and so does whom he unbanned."""
    fail2ban.apiban("ban", BAD, "--reason", "by hand")
    with Store(fail2ban.state / "store.db") as store:
        store.ban([parse_network(OTHER)], source="apiban", reason="", expires=4e9, now=1.0)
    fail2ban.apiban("unban", OTHER)
    for address in (BAD, OTHER, GOOD):  # the last one shows that those before are done
        fail2ban.client("set", "sip", "banip", address)
    wait_for(lambda: fail2ban.entries(GOOD), "the ban", 30)
    assert fail2ban.apiban("check", OTHER)["banned"] is False
    for address in (BAD, OTHER, GOOD):
        fail2ban.client("set", "sip", "unbanip", address)
    wait_for(lambda: not fail2ban.entries(GOOD), "the unban", 30)
    (entry,) = fail2ban.entries(BAD)
    assert (entry.reason, entry.expires) == ("by hand", float(0xFFFFFFFF))


def test_its_restart_lifts_nothing(fail2ban: Fail2ban) -> None:
    """Our table has the ban still; it is not set again either."""
    fail2ban.client("set", "sip", "banip", BAD)
    wait_for(lambda: fail2ban.entries(BAD), "the ban", 20)
    before = fail2ban.entries(BAD)
    fail2ban.stop()
    assert fail2ban.entries(BAD) == before
    fail2ban.start()
    wait_for(lambda: BAD in fail2ban.client("status", "sip"), "what it restores", 20)
    assert fail2ban.entries(BAD) == before


# Our log, for a fail2ban that blocks -----------------------------------------------------------


def matched(folder: Path, lines: Sequence[str]) -> int:
    """Give how many lines our filter takes."""
    (folder / "filter.d").mkdir()
    (folder / "filter.d" / "common.conf").symlink_to(STOCK / "filter.d" / "common.conf")
    (folder / "filter.d" / "apiban.conf").symlink_to(OURS / "filter.d" / "apiban.conf")
    shutil.copy(STOCK / "fail2ban.conf", folder)
    (folder / "log").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    done = subprocess.run(
        ["fail2ban-regex", "-c", folder, folder / "log", folder / "filter.d" / "apiban.conf"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("Lines:")]
    return int(said.split("ignored, ")[1].split()[0])


@pytest.mark.parametrize("who", ["kamailio", "/usr/sbin/kamailio"])
@pytest.mark.parametrize("source", [BAD, "2001:db8::7"])
def test_what_the_detector_found(tmp_path: Path, who: str, source: str) -> None:
    """Of both families, as syslog has it."""
    assert matched(tmp_path, [LINE.format(who=who, source=source)]) == 1


def test_packets_get_nobody_banned(tmp_path: Path) -> None:
    """Neither by what they bring into the log, nor by what our detector did not ban."""
    line = LINE.format(who="kamailio", source=BAD)
    text = line[line.index("apiban:") :]
    head = line[: line.index("sr_kemi")]
    lines = [
        f'{line} effect="not banned: it is allowed"',
        f'{head}sr_kemi_core_notice(): apiban: event=first-drop source={OTHER} line="{text}"',
        f"{head}sr_kemi_core_notice(): apiban: event=first-drop source={OTHER} line={text}",
        line.replace("<core> [core/kemi.c:126]: sr_kemi_core_notice():", "<script>: User"),
        line.replace("kamailio[1720]: ", "sshd[1720]: "),
    ]
    assert matched(tmp_path, lines) == 0
