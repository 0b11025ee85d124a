"""Kamailio itself: is it there, with what it needs, and started as it should be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from apiban.doctor.finding import Finding, fail, note, ok, warn
from apiban.firewall.report import FirewallReport

__all__ = [
    "check_absence",
    "check_allocator",
    "check_list_alone",
    "check_modules",
    "check_running",
    "check_unit",
    "check_version",
    "installed_modules",
]

_NEEDED: Final = {
    "app_python3": "kamailio-python3-modules",
    "rtimer": "kamailio",
    "pv": "kamailio",
}
_FRONT: Final = {"htable": "kamailio", "statistics": "kamailio"}
_OLDEST: Final = (5, 6)
_FOLDERS: Final = (
    "usr/lib/*/kamailio/modules",
    "usr/lib*/kamailio/modules",
    "usr/local/lib*/kamailio/modules",
)


def check_absence(report: FirewallReport) -> Finding:
    """Say that none runs on a host whose firewall client holds the whole list in the kernel."""
    what = "counts" if report.mode == "shadow" else "drops"
    return note("Kamailio", f"none runs on these folders: the kernel {what} by the list alone")


def check_list_alone() -> Finding:
    """Say that none runs on a host that only makes the list, as for another firewall."""
    return note(
        "Kamailio",
        "none runs on these folders: apiban sync --forever keeps the list, and nothing here drops"
        " by it",
    )


def check_running(started: float | None, workers: int, *, faults: int) -> Iterator[Finding]:
    """Tell whether a Kamailio with the module runs; ``started`` is None when none does."""
    if started is None:
        yield fail(
            "Kamailio",
            "none with the module runs on these folders",
            "start it; its log says why not (journalctl -u kamailio); paths.runtime must be the"
            " same for it and for you, and so must the container be",
        )
        return
    since = datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    yield ok("Kamailio", f"runs since {since}, {workers} SIP workers")
    if faults:
        yield warn(
            "Kamailio",
            f"{faults:,} faults of ours let a message through",
            "its log says where (event=fault): report it",
        )


def check_version(text: str) -> Finding:
    """Read what ``kamailio -v`` says."""
    found = re.search(r"version: \S+ (\d+)\.(\d+)\.(\S+)", text)
    if found is None:
        return note("version", "kamailio -v does not say it")
    version = f"{found[1]}.{found[2]}.{found[3]}"
    if (int(found[1]), int(found[2])) < _OLDEST:
        return fail("version", f"Kamailio {version}", "5.6 or newer is needed")
    return ok("version", f"Kamailio {version}")


def check_modules(has: Callable[[str], bool], *, loaded: bool) -> Iterator[Finding]:
    """Look for the modules: among those that run (``loaded``), or among those on the disk."""
    how = "loaded" if loaded else "installed"
    missing = [name for name in _NEEDED if not has(name)]
    for name in missing:
        mend = f"apt-get install {_NEEDED[name]}"
        if loaded:
            mend += f'; loadmodule "{name}.so"'
        yield fail("modules", f"{name} is not {how}", mend)
    if not missing:
        yield ok("modules", f"{', '.join(_NEEDED)} are {how}")
    slow = [name for name in _FRONT if not has(name)]
    if slow:
        yield note(
            "modules",
            f"{', '.join(slow)} not {how}: a dropped packet costs about twice as much",
            "#!define APIBAN_WITH_FRONT before the include (docs/kemi.md)",
        )


def installed_modules(root: Path = Path("/")) -> frozenset[str]:
    """Give the names of the modules in the folders where packages, and make install, put them."""
    return frozenset(path.stem for folder in _FOLDERS for path in root.glob(f"{folder}/*.so"))


def check_allocator(command: Sequence[str]) -> Finding:
    """Look for ``-x tlsf`` in the words that Kamailio was started with."""
    words = list(command)
    for at, word in enumerate(words):
        if word == "-xtlsf" or (word == "-x" and words[at + 1 : at + 2] == ["tlsf"]):
            return ok("allocator", "tlsf")
    if not words:
        return note("allocator", "the command line of Kamailio cannot be read")
    return warn(
        "allocator",
        "Kamailio was started without -x tlsf: each parsed message is several times as dear",
        "use the drop-in kamailio/systemd/apiban.conf, or add -x tlsf to its command",
    )


def check_unit(restart: str | None) -> Finding:
    """Look at what ``systemctl show`` says of Restart; None where no unit runs Kamailio."""
    if restart is None:
        return note("unit", "no systemd unit runs this Kamailio: what starts it again?")
    if restart == "always":
        return ok("unit", "Restart=always")
    return warn(
        "unit",
        f"Restart={restart}: Kamailio may end with status 0 when one of its processes fails",
        "use the drop-in kamailio/systemd/apiban.conf",
    )
