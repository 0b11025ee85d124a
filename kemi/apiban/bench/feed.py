"""``bin/bench-feed``: a full paged pull and checks, while sightings arrive.

The service runs as a process of its own, as an operator starts it; one thread pulls the whole list
page by page, one reports sightings, one checks addresses now and then.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import requests

from apiban.trial.stage import free_port

__all__ = ["main"]

_FIRST: Final = int(ipaddress.IPv4Address("60.0.0.0"))
_BATCH: Final = 250
_CHECK_EVERY: Final = 0.05


@dataclass(slots=True)
class Times:
    """Durations in milliseconds."""

    values: list[float] = field(default_factory=list)

    def measure(self, work: Callable[[], requests.Response]) -> requests.Response:
        """Do it, and note how long it took."""
        began = time.perf_counter()
        response = work()
        self.values.append((time.perf_counter() - began) * 1000)
        return response

    def show(self) -> dict[str, float]:
        """Give the median, the 99th percentile and the worst."""
        values = sorted(self.values)
        return {
            "n": len(values),
            "median": round(statistics.median(values), 2),
            "p99": round(values[int(len(values) * 0.99)], 2),
            "max": round(values[-1], 2),
        }


class Feed:
    """A service in a folder of its own."""

    def __init__(self, folder: Path, database: str) -> None:
        self._port = free_port("127.0.0.1")
        self._settings = folder / "feed.toml"
        self._settings.write_text(
            f'[database]\nurl = "{database}"\n[serve]\nport = {self._port}\n', encoding="utf-8"
        )
        self._settings.chmod(0o600)
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def command(self, *words: str, **options: Any) -> str:
        """Run a command of ``apiban feed``."""
        done = subprocess.run(
            [sys.executable, "-m", "apiban.cli", *self._words(*words)],
            check=True,
            capture_output=True,
            text=True,
            **options,
        )
        return str(done.stdout).strip()

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "apiban.cli", *self._words("serve")],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for _ in range(600):
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.url}/ready", timeout=1).ok:
                    return
            time.sleep(0.1)
        raise SystemExit(f"the feed did not start: {self._log.read_text(encoding='utf-8')}")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)

    def memory(self) -> float:
        """Give its resident memory in MiB."""
        pid = self._process.pid if self._process else os.getpid()
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def _words(self, *words: str) -> list[str]:
        return ["feed", "--settings", str(self._settings), *words]


class Reporter(threading.Thread):
    """Reports sightings at a rate, a tenth of them of new addresses."""

    def __init__(self, url: str, key: str, rate: int, listed: int) -> None:
        super().__init__(daemon=True)
        self._url = f"{url}/api/report"
        self._headers = {"Authorization": f"Bearer {key}"}
        self._rate = rate
        self._listed = listed
        self._random = random.Random(7)  # noqa: S311 - which addresses, not a secret
        self.end = threading.Event()
        self.sent = 0
        self.times = Times()

    def run(self) -> None:
        """Report until the end."""
        session = requests.Session()
        began = time.monotonic()
        while not self.end.wait(max(0.0, began + self.sent / self._rate - time.monotonic())):
            batch = [self._sighting(self.sent + at + 1) for at in range(_BATCH)]
            document = {"queue": "0" * 32, "sightings": batch}
            response = self.times.measure(
                lambda document=document: session.post(  # type: ignore[misc]
                    self._url, json=document, headers=self._headers, timeout=60
                )
            )
            response.raise_for_status()
            self.sent += response.json()["accepted"]

    def _sighting(self, number: int) -> dict[str, Any]:
        place = self._random.randrange(self._listed) if number % 10 else self._listed + number
        return {
            "sequence": number,
            "at": time.time(),
            "source": str(ipaddress.IPv4Address(_FIRST + place)),
            "transport": "udp",
            "method": "REGISTER",
            "proof": "nonce",
            "tool": "sipvicious",
            "user_agent": "friendly-scanner",
            "users": ["100"],
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the figures as JSON, and give the exit status."""
    parser = argparse.ArgumentParser(prog="bench-feed", description=__doc__)
    parser.add_argument("--addresses", type=int, default=1_000_000, help="active (%(default)s)")
    parser.add_argument("--rate", type=int, default=1000, help="sightings a second (%(default)s)")
    parser.add_argument("--database", help="a URL; default: SQLite in a temporary folder")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="apiban-bench-") as name:
        folder = Path(name)
        feed = Feed(folder, options.database or f"sqlite:////{folder.relative_to('/')}/feed.db")
        sys.stdout.write(json.dumps(_measure(feed, options.addresses, options.rate), indent=2))
        sys.stdout.write("\n")
    return 0


def _measure(feed: Feed, addresses: int, rate: int) -> dict[str, Any]:
    read = feed.command("key", "create", "reader", "--requests", "0")
    report = feed.command("key", "create", "honeypot", "--may", "report")
    lines = "\n".join(str(ipaddress.IPv4Address(_FIRST + at)) for at in range(addresses))
    began = time.monotonic()
    feed.command("import", "-", input=lines)
    imported = time.monotonic() - began
    feed.start()
    try:
        quiet = _pull(feed, read)
        reporter = Reporter(feed.url, report, rate, addresses)
        reporter.start()
        busy = _pull(feed, read)
        reporter.end.set()
        reporter.join(60)
    finally:
        feed.stop()
    reported = {"a_second": round(reporter.sent / busy["seconds"]), "ms": reporter.times.show()}
    return {
        "addresses": addresses,
        "import_seconds": round(imported, 1),
        "pull_quiet": quiet,
        "pull_beside_reports": busy,
        "reports": reported,
    }


def _pull(feed: Feed, key: str) -> dict[str, Any]:
    """Pull the whole list; give the times of its first, middle and last tenth of pages."""
    session, pages, seen, cursor = requests.Session(), Times(), set(), "100"
    checks, end = Times(), threading.Event()
    checker = threading.Thread(target=_check, args=(feed.url, key, checks, end), daemon=True)
    checker.start()
    before, began = feed.memory(), time.monotonic()
    while True:
        url = f"{feed.url}/api/{key}/banned/{cursor}"
        response = pages.measure(lambda url=url: session.get(url, timeout=60))  # type: ignore[misc]
        document = response.json()
        if document["ID"] == "none":
            break
        cursor = document["ID"]
        seen.update(document["ipaddress"])
    seconds = time.monotonic() - began
    end.set()
    checker.join(60)
    tenth = max(len(pages.values) // 10, 1)
    middle = len(pages.values) // 2
    return {
        "seconds": round(seconds, 1),
        "different_addresses": len(seen),
        "page_ms": pages.show(),
        "first_tenth_ms": Times(pages.values[:tenth]).show(),
        "middle_tenth_ms": Times(pages.values[middle : middle + tenth]).show(),
        "last_tenth_ms": Times(pages.values[-tenth:]).show(),
        "check_ms": checks.show(),
        "server_mib_before_and_after": [round(before, 1), round(feed.memory(), 1)],
    }


def _check(url: str, key: str, times: Times, end: threading.Event) -> None:
    session, number = requests.Session(), 0
    while not end.wait(_CHECK_EVERY):
        number += 7919
        address = ipaddress.IPv4Address(_FIRST + number % 2_000_000)
        times.measure(lambda a=address: session.get(f"{url}/api/{key}/check/{a}", timeout=60))  # type: ignore[misc]


if __name__ == "__main__":
    sys.exit(main())
