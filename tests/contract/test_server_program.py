import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from apiban.errors import FeedInvalid, FeedRateLimited, FeedUnauthorized
from apiban.feed.answer import CheckResult, EndOfList, Page
from apiban.feed.client import FeedClient
from apiban.feed.server.__main__ import main
from apiban.settings import Secret

from tests.unit.feed.parts import KEY, feed_settings


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the program with a list of 300 and eight requests a minute; give its base URL."""
    path = tmp_path / "list.txt"
    path.write_text("".join(f"198.51.{n // 250}.{n % 250}\n" for n in range(300)), encoding="ascii")
    monkeypatch.setenv("APIBAN_FEED_SERVER_KEY", KEY)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    started: queue.SimpleQueue[uvicorn.Server] = queue.SimpleQueue()
    startup = uvicorn.Server.startup

    async def report(self: uvicorn.Server, *args: object, **options: object) -> None:
        await startup(self, *args, **options)  # type: ignore[arg-type]
        started.put(self)

    monkeypatch.setattr(uvicorn.Server, "startup", report)
    arguments = ["--list", str(path), "--port", "0", "--requests", "8", "--window", "60"]
    status: list[int] = []
    thread = threading.Thread(target=lambda: status.append(main(arguments)))
    thread.start()
    server = started.get(timeout=20)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/api/"
    server.should_exit = True
    thread.join()
    assert status == [0]


@pytest.mark.parametrize("version", [1, 2])
def test_program_serves_the_client(
    url: str, capfd: pytest.CaptureFixture[str], version: int
) -> None:
    """All that a node does in its life, over real HTTP; the key is printed nowhere."""
    client = FeedClient(feed_settings(url=url, version=version))
    first = client.banned()
    assert isinstance(first, Page)
    second = client.banned(first.cursor)
    assert isinstance(second, Page)
    assert (len(first.networks), len(second.networks)) == (250, 50)
    assert client.banned(second.cursor) == EndOfList()
    assert client.check("198.51.1.49") == CheckResult(listed=True)
    assert client.check("198.51.1.50") == CheckResult(listed=False)
    with pytest.raises(FeedInvalid):
        client.check("nonsense")
    with pytest.raises(FeedInvalid):
        client.banned("nonsense")
    with pytest.raises(FeedUnauthorized):
        FeedClient(feed_settings(url=url, version=version, key=Secret("other"))).banned()
    with pytest.raises(FeedInvalid):
        FeedClient(feed_settings(url=f"{url}x/y/", version=version)).banned()
    client.banned()
    with pytest.raises(FeedRateLimited) as caught:
        client.banned()
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 60
    assert KEY not in "".join(capfd.readouterr())
