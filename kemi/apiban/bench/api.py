"""An APIBAN API (version 1) on loopback that counts, limits, and can hold a page back."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self

from apiban.feed.answer import FROM_START, LARGEST_PAGE
from apiban.trial.stage import free_port

__all__ = ["API_KEY", "Api", "Exchange", "HeldPages", "Limit", "no_news", "pages_of"]

# The cursor that is asked for in, status and document out.
Answer = tuple[int, Mapping[str, object]]
Answerer = Callable[[str], Answer]

API_KEY: Final = "bench"
_HOST: Final = "127.0.0.1"
_END: Final[Answer] = (400, {"ipaddress": ["no new bans"], "ID": "none"})
_TOO_MANY: Final[Answer] = (429, {"ipaddress": "rate limit exceeded", "ID": "unauthorized"})


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer; the times are of ``time.perf_counter``."""

    asked: float
    answered: float  # when its last byte was with the kernel
    status: int


class Limit:
    """No more than so many requests in any so many seconds; what is refused does not count."""

    def __init__(self, requests: int, window: float, *, now: Callable[[], float]) -> None:
        self._window = window
        self._now = now
        self._granted: deque[float] = deque(maxlen=requests)

    def grants(self) -> bool:
        """Tell whether one more request is within the limit, and count it then."""
        now = self._now()
        granted = self._granted
        if len(granted) == granted.maxlen and now - granted[0] < self._window:
            return False
        granted.append(now)
        return True


def no_news(_cursor: str) -> Answer:
    """Answer that the list is at its end."""
    return _END


def pages_of(addresses: Sequence[str]) -> Answerer:
    """Answer with a list, page by page; an ID counts the addresses before it."""

    def answer(cursor: str) -> Answer:
        first = int(cursor) - int(FROM_START)
        page = addresses[first : first + LARGEST_PAGE]
        if not page:
            return _END
        return 200, {"ipaddress": list(page), "ID": str(int(cursor) + len(page))}

    return answer


class HeldPages:
    """Answers with a page once it is released, and keeps whoever asks waiting until then."""

    def __init__(self) -> None:
        self._page: Sequence[str] | None = None
        self._changed = threading.Condition()
        self._waiting = 0
        self._closed = False

    def __call__(self, cursor: str) -> Answer:
        """Wait for a page."""
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or self._page is not None)
            self._waiting -= 1
            page, self._page = self._page, None
        if page is None:
            return _END
        return 200, {"ipaddress": list(page), "ID": str(int(cursor) + len(page))}

    def wait_for_asker(self, timeout: float) -> bool:
        """Wait until somebody waits for a page; tell whether somebody does."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting > 0, timeout)

    def release(self, page: Sequence[str]) -> None:
        """Let the one who waits have this page."""
        with self._changed:
            self._page = page
            self._changed.notify_all()

    def close(self) -> None:
        """Hold nobody any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Api:
    """Serves on a port of its own: a context manager. ``exchanges`` grow as answers are sent."""

    def __init__(self, answer: Answerer, limit: Limit | None = None) -> None:
        self.exchanges: list[Exchange] = []
        self.refused = 0  # requests over the limit
        self._answer = answer
        self._limit = limit
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((_HOST, free_port(_HOST)), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    @property
    def base(self) -> str:
        """The base URL, without the key."""
        return f"http://{_HOST}:{self._server.server_port}/api/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def pages(self) -> list[Exchange]:
        """The exchanges that brought addresses."""
        return [one for one in self.exchanges if one.status == 200]

    def _reply(self, path: str) -> Answer:
        with self._lock:
            granted = self._limit is None or self._limit.grants()
            self.refused += not granted
        if not granted:
            return _TOO_MANY
        cursor = path.rpartition("/")[2]  # the first request may come without one
        return self._answer(cursor if cursor.isdecimal() else FROM_START)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = time.perf_counter()
                status, document = api._reply(self.path)
                body = json.dumps(document).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    return  # whoever asked is gone
                api.exchanges.append(Exchange(asked, time.perf_counter(), status))

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler
