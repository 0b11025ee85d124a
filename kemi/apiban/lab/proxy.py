"""The way from the lab's node to its feed: it passes requests on, or lies when it is told to.

``python3 -m apiban.lab.proxy URL ADDRESS...`` listens on port 8080; the addresses are whom it lists
when it lists everybody. What it does is the word in ``MODE``, read
at each request; without the file it is honest. It runs in the feed's image, and needs no package.
"""

from __future__ import annotations

import json
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

__all__ = ["MODE", "MODES", "main", "twisted"]

MODE: Final = Path("/tmp/mode")  # noqa: S108 - in a container of its own
MODES: Final = ("honest", "slow", "garbage", "empty", "everything", "half")
PORT: Final = 8080

_TIMEOUT: Final = 10.0
_SLOW: Final = 15.0  # seconds: longer than the node waits
_END: Final = (400, b'{"ipaddress":["no new bans"],"ID":"none"}')
_BROADEST: Final = ("0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/1", "172.16.0.0/12")


def twisted(
    mode: str, status: int, body: bytes, everybody: Sequence[str] = _BROADEST
) -> tuple[int, bytes]:
    """Give the answer that this mode makes of the feed's own."""
    if mode == "garbage":
        return 200, b'<html>\x00\xff{"ipaddress": ['
    if mode == "empty":
        return _END
    if mode in {"everything", "half"} and status == 200:
        page: dict[str, Any] = json.loads(body)
        listed = page["ipaddress"]
        # The attackers stand first in the list: they are in the half that is gone.
        page["ipaddress"] = (
            [*listed, *everybody] if mode == "everything" else listed[-len(listed) * 2 // 5 :]
        )
        return status, json.dumps(page).encode()
    return status, body


def main(url: str, *addresses: str) -> None:
    """Serve for ever."""
    everybody = (*_BROADEST, *addresses)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/ready":
                self._send(200, b"ready")
                return
            mode = MODE.read_text(encoding="ascii").strip() if MODE.exists() else "honest"
            if mode == "slow":
                threading.Event().wait(_SLOW)
            status, body = _ask(url + self.path, self.headers["Authorization"])
            self._send(*twisted(mode, status, body, everybody))

        def _send(self, status: int, body: bytes) -> None:
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                pass  # the node waits no longer

        def log_message(self, *_: object) -> None:
            pass  # a path holds the key

    ThreadingHTTPServer(("0.0.0.0", PORT), Handler).serve_forever()  # noqa: S104 - the lab's network


def _ask(url: str, authorization: str | None) -> tuple[int, bytes]:
    """Ask the feed; where it is not there, be a gateway that says so."""
    kept = {"Authorization": authorization} if authorization else {}
    request = urllib.request.Request(url, headers=kept)  # noqa: S310 - the feed's own
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310 - as above
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 502, b"{}"


if __name__ == "__main__":
    main(*sys.argv[1:])
