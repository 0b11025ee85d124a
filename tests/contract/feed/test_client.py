import socket
import ssl
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from apiban.errors import FeedInvalid, FeedOutage, FeedRateLimited, FeedUnauthorized
from apiban.feed.answer import CheckResult, EndOfList, Page
from apiban.feed.client import FeedClient
from apiban.settings import Secret

from tests.contract.feed.conftest import BLOCK, IPV6, LISTED, Make
from tests.support.feedservice import HOST, FeedService, host
from tests.support.node import wait_for
from tests.unit.feed.parts import feed_settings


def client(service: FeedService, version: int, key: str, **changes: object) -> FeedClient:
    """Give the client that nodes use."""
    return FeedClient(
        feed_settings(
            url=service.url, version=version, key=Secret(service.keys.get(key, key)), **changes
        )
    )


def walk(asked: FeedClient) -> list[str]:
    """Page from the start to the end."""
    found: list[str] = []
    cursor = "100"
    while isinstance(answer := asked.banned(cursor), Page):
        found += map(str, answer.networks)
        cursor = answer.cursor
    assert answer == EndOfList()
    return found


def test_client_pages_and_checks(shared: FeedService, version: int) -> None:
    """All that a node does, with the types that it expects."""
    plain, every = client(shared, version, "reader"), client(shared, version, "every")
    assert walk(plain) == LISTED
    assert sorted(walk(every)) == sorted([*LISTED, IPV6, BLOCK])
    assert plain.check(LISTED[0]) == CheckResult(listed=True)
    assert plain.check(host(80_000)) == CheckResult(listed=False)
    assert every.check(IPV6.upper()) == CheckResult(listed=True)
    assert every.check("2a0e:1bc0::78") == CheckResult(listed=False)


def test_client_understands_every_refusal(shared: FeedService, version: int) -> None:
    """A wrong key, a wrong right, a wrong question and a wrong base are told apart."""
    for key in ("stranger", "pot"):
        with pytest.raises(FeedUnauthorized):
            client(shared, version, key).banned()
        with pytest.raises(FeedUnauthorized):
            client(shared, version, key).check(LISTED[0])
    with pytest.raises(FeedInvalid):
        client(shared, version, "reader").banned("nonsense")
    with pytest.raises(FeedInvalid):
        client(shared, version, "reader").check("nonsense")
    wrong = feed_settings(
        url=shared.url + "x/y/", version=version, key=Secret(shared.keys["reader"])
    )
    with pytest.raises(FeedInvalid):
        FeedClient(wrong).banned()


def test_client_is_told_to_wait(make: Make, version: int) -> None:
    """The wait is one that it can read."""
    service = make()
    service.key("slow", "--requests", "1", "--window", "30s")
    service.start()
    asked = client(service, version, "slow")
    assert asked.banned() == EndOfList()
    with pytest.raises(FeedRateLimited) as caught:
        asked.banned()
    assert caught.value.retry_after is not None
    assert 25 < caught.value.retry_after <= 31


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1; give it and its key."""
    pem, key = tmp_path / "cert.pem", tmp_path / "cert.key"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=x"
        f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {pem}".split(),
        check=True,
        capture_output=True,
        timeout=20,
    )
    return pem, key


def test_tls(make: Make, certificate: tuple[Path, Path], version: int) -> None:
    """Verified clients are served; others, and plain HTTP, get nothing on that port."""
    pem, private = certificate
    service = make(serve__certificate=str(pem), serve__certificate_key=str(private))
    key = service.key("node")
    service.cli("list", host(1))
    service.tls = ssl.create_default_context(cafile=str(pem))
    service.start()
    assert walk(client(service, version, "node", ca_file=pem)) == [host(1)]
    with pytest.raises(FeedOutage):
        client(service, version, "node").banned()
    plain = f"GET /api/{key}/banned HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    assert host(1).encode() not in service.exchange(plain, 3)


def test_answers_that_nobody_takes_end(make: Make) -> None:
    """A client that asks for much and reads nothing holds no connection for long."""
    service = make().start()
    folder = Path(f"/proc/{service.pid}/fd")
    before = len(list(folder.iterdir()))
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
    with ExitStack() as stack:
        for _ in range(5):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.connect((HOST, service.port))
            client.settimeout(1)
            with suppress(OSError):
                client.send(asked)
        wait_for(lambda: len(list(folder.iterdir())) >= before + 4, "their connections")
        wait_for(lambda: len(list(folder.iterdir())) <= before, "the end of them", 45)
    assert service.ask("GET", "/health").status == 200
