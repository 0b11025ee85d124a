"""An APIBAN API over real HTTP whose behaviour a test changes while it runs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from apiban.feed.answer import EndOfList

from tests.support.feeds import ListFeed

KEY = "sesame-open-5f1c"


class Api:
    """Serves v1 on a port of its own; ``mode`` is one of the names in ``_MODES``."""

    def __init__(self, addresses: Iterable[str] = ()) -> None:
        self.feed = ListFeed(addresses)
        self.mode = "good"
        self.delay = 0.0
        self.requests: list[tuple[float, str]] = []  # monotonic time and path
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.requests.append((time.monotonic(), self.path))
                api.stopped.wait(api.delay)
                status, body = api.answer(self.path)
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self.stopped = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Give the base URL."""
        return f"http://127.0.0.1:{self._server.server_port}/api/"

    def answer(self, path: str) -> tuple[int, bytes]:
        """Give status and body for a path, as the mode has it."""
        if self.mode == "failing":
            return 500, b"<html>oops</html>"
        if self.mode == "garbage":
            return 200, b"\x00\xff{]"
        if self.mode == "unauthorized" or f"/{KEY}/" not in path:
            return 403, b'{"ipaddress":"none","ID":"unauthorized"}'
        if self.mode == "limited":
            return 429, b'{"ipaddress":"rate limit exceeded","ID":"unauthorized"}'
        cursor = path.rpartition("/")[2]
        page = self.feed.banned(cursor if cursor.isdecimal() else "100")
        if self.mode == "empty" or isinstance(page, EndOfList):
            return 400, b'{"ipaddress":["no new bans"],"ID":"none"}'
        body = {"ipaddress": [str(one) for one in page.networks], "ID": page.cursor}
        return 200, json.dumps(body).encode()

    def stop(self) -> None:
        """Close the port, so that nothing answers."""
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
