"""Everything that a trial needs around Kamailio: a feed with a sample list, and an upstream."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from apiban.address import parse_network
from apiban.feed.server.service import Service
from apiban.feed.server.settings import load_server_settings
from apiban.feed.server.stderr_log import make_log
from apiban.feed.server.transfer import import_list
from apiban.trial.kamailio import KamailioError

__all__ = ["CALLER", "CONTROL", "LISTED", "UPSTREAM", "free_port"]
__all__ += ["own_environ", "sample_feed", "wait", "write_settings"]

LISTED: Final = tuple(f"127.0.1.{number}" for number in range(1, 5))
CALLER: Final = "127.0.2.1"
CONTROL: Final = "127.0.3.1"
UPSTREAM: Final = "127.0.4.1"

_START_TIMEOUT: Final = 15.0


def free_port(host: str) -> int:
    """Give a port that nobody has, for UDP and TCP alike."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((host, 0))
            port = int(tcp.getsockname()[1])
            with contextlib.suppress(OSError):
                udp.bind((host, port))
                return port


@contextmanager
def sample_feed(folder: Path) -> Iterator[tuple[str, str]]:
    """Serve a sample list of two pages; give the URL and the key."""
    port = free_port("127.0.0.1")
    settings = folder / "feed.toml"
    settings.write_text(
        f'[database]\nurl = "sqlite:////{(folder / "feed.db").relative_to("/")}"\n'
        f"[serve]\nport = {port}\n"
        "# The trial's sources are on loopback, which nobody lists otherwise.\n"
        "[curation]\naccept_private = true\n",
        encoding="utf-8",
    )
    key = _fill(settings)
    with (folder / "feed.log").open("wb") as log:
        feed = subprocess.Popen(
            [sys.executable, "-m", "apiban.cli", "feed", "--settings", settings, "serve"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for_port(port, feed)
        yield f"http://127.0.0.1:{port}/api/", key
    finally:
        feed.terminate()
        try:
            feed.wait(5)
        except subprocess.TimeoutExpired:
            feed.kill()
            feed.wait()


def _fill(settings: Path) -> str:
    """List the sources of the flood, then some of the documentation's addresses; give a key."""
    others = [f"198.51.100.{number}" for number in range(1, 255)]
    with Service(load_server_settings(settings, {}), now=time.time, log=make_log("err")) as service:
        import_list(
            service.database,
            service.claims,
            [parse_network(one) for one in (*LISTED, *others)],
            name="sample",
            now=service.now,
            lasts=86400.0,
            replace=False,
        )
        return service.keys.create("trial", requests=0).reveal()


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < give_up and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise KamailioError("the local feed did not start; see feed.log")


def own_environ(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Keep state and runtime files in a folder of ours, unless somebody chose others."""
    paths = {
        "APIBAN_PATHS_STATE": str(folder / "state"),
        "APIBAN_PATHS_RUNTIME": str(folder / "runtime"),
    }
    return {**paths, **environ}


def wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds; tell whether it did in time."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.02)
    return True


def write_settings(path: Path, *, url: str, key: str, upstream: str) -> None:
    """Write the trial's settings, readable for nobody else."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(
            f'[feed]\nurl = "{url}"\nkey = "{key}"\n'
            "# The trial's sources are on loopback, which a feed may not list otherwise.\n"
            f'accept_private = true\n[edge]\nupstreams = ["{upstream}"]\n'
        )
