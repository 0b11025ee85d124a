import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.contract.feed.conftest import LISTED, Make
from tests.support.feedservice import (
    END,
    LIMITED,
    MALFORMED,
    NOT_LISTED,
    REFUSED,
    FeedService,
    host,
    sighting,
)
from tests.support.node import wait_for


@pytest.mark.parametrize(
    "key",
    ["other", "0" * 40, "%ff%fe", "%00", "%E2%82%AC", "k" * 3000, "{key}x", "%20{key}", "get"],
)
def test_unknown_key(shared: FeedService, key: str) -> None:
    """Refused for every question, malformed ones included."""
    key = key.format(key=shared.keys["reader"])
    for path in (f"/api/{key}/banned", f"/api/{key}/banned/100", f"/api/{key}/check/45.80.0.1"):
        assert shared.ask("GET", path).shown == REFUSED
    assert shared.ask("GET", f"/ipset/{key}/list").shown == REFUSED
    assert shared.ask("GET", f"/api/{key}/banned/abc").shown in (REFUSED, MALFORMED)


@pytest.mark.parametrize(
    "near", ["{key}", "Bearer", "Bearer ", "Basic {key}", "Bearer {key} x", "Bearer x{key}"]
)
@pytest.mark.parametrize("verb", ["get", "check", "report"])
def test_no_bearer(shared: FeedService, verb: str, near: str) -> None:
    """A stranger is refused whatever the body, and near is not enough."""
    key = shared.keys["pot" if verb == "report" else "reader"]
    headers = {"Authorization": near.format(key=key), "Content-Type": "application/json"}
    for body in (b"{}", b"{", b"[" * 3000):
        assert shared.ask("POST", f"/api/{verb}", body, headers).shown == REFUSED
    assert shared.ask("POST", f"/api/{verb}", b"{}").shown == REFUSED


def test_key_is_not_taken_from_elsewhere(shared: FeedService) -> None:
    """Not from a query, where proxies log it."""
    key = shared.keys["reader"]
    assert shared.ask("POST", f"/api/get?key={key}", b"{}").shown == REFUSED
    assert shared.ask("GET", f"/api/x/banned?key={key}").shown == REFUSED


def test_rights(shared: FeedService) -> None:
    """Who reports does not read, and who reads does not report."""
    pot, reader = shared.keys["pot"], shared.keys["reader"]
    for version in (1, 2):
        assert shared.banned(version, pot).shown == REFUSED
        assert shared.check(version, pot, LISTED[0]).shown == REFUSED
    assert shared.ask("GET", f"/ipset/{pot}/list").shown == REFUSED
    assert shared.report(reader, [sighting(host(90_000), 1)]).shown == REFUSED
    assert shared.check(1, reader, host(90_000)).shown == NOT_LISTED


def test_revoked_and_rotated_while_it_runs(make: Make, database: str) -> None:
    """The old text is refused at once or soon, the new one works, and the record stays one."""
    service = make(database)
    gone, old = service.key("gone"), service.key("turned")
    service.start()
    assert service.banned(1, gone).shown == END
    assert service.banned(2, old).shown == END
    service.cli("key", "revoke", "gone")
    service.keys["turned again"] = new = service.cli("key", "rotate", "turned").strip()
    assert new != old
    for version in (1, 2):
        wait_for(lambda v=version: service.banned(v, gone).shown == REFUSED, "a refusal", 3)
        wait_for(lambda v=version: service.banned(v, old).shown == REFUSED, "a refusal", 3)
        assert service.banned(version, new).shown == END
    assert service.cli("key", "list").count("turned") == 1


def test_right_is_changed_while_it_runs(make: Make) -> None:
    """``key change`` is in force soon, without a restart."""
    service = make()
    key = service.key("both")
    service.cli("list", "2a0e:1bc0::77", host(1))
    service.start()
    assert service.listed(key) == [host(1)]
    service.cli("key", "change", "both", "--ipv6")
    wait_for(lambda: "2a0e:1bc0::77" in service.listed(key), "the IPv6 address", 3)
    service.cli("key", "change", "both", "--may", "report")
    wait_for(lambda: service.banned(1, key).shown == REFUSED, "a refusal", 3)


def test_default_quota_outlives_a_crash(make: Make, database: str) -> None:
    """Five in 120 s over both versions and the plain list; then APIBAN's 429, and how long."""
    service = make(database)
    key = service.keys["client"]
    service.start()
    for version in (1, 2):
        assert service.banned(version, key).shown == END
        assert service.check(version, key, host(1)).shown == NOT_LISTED
    assert service.ask("GET", f"/ipset/{key}/list").status == 200

    def is_limited() -> None:
        for answer in (
            service.banned(1, key),
            service.banned(2, key),
            service.check(1, key, host(1)),
            service.check(2, key, host(1)),
            service.ask("GET", f"/ipset/{key}/list"),
        ):
            assert answer.shown == LIMITED
            assert 100 <= int(answer.headers["retry-after"]) <= 121

    is_limited()
    service.kill()
    service.start()
    is_limited()
    service.stop()
    service.start()
    is_limited()


def test_requests_before_a_crash_count_after_it(make: Make, database: str) -> None:
    """Three before the kill leave two after it."""
    service = make(database)
    key = service.keys["client"]
    service.start()
    assert [service.banned(1, key).status for _ in range(3)] == [400] * 3
    service.kill()
    service.start()
    assert [service.banned(1, key).status for _ in range(4)] == [400, 400, 429, 429]


def test_quota_holds_for_requests_at_once(make: Make, database: str) -> None:
    """Of thirty at the same time five are answered."""
    service = make(database)
    key = service.keys["client"]
    service.start()
    with ThreadPoolExecutor(15) as pool:
        answers = list(pool.map(lambda n: service.banned(1 + n % 2, key), range(30)))
    assert sorted(answer.status for answer in answers) == [400] * 5 + [429] * 25


def test_retry_after_is_enough(make: Make) -> None:
    """Who waits as told is answered, and the refused requests have cost nothing."""
    service = make()
    key = service.key("waiting", "--requests", "2", "--window", "2s")
    service.start()
    assert [service.banned(1, key).status for _ in range(2)] == [400, 400]
    refused = [service.banned(1, key) for _ in range(4)]
    assert {answer.status for answer in refused} == {429}
    wait = int(refused[-1].headers["retry-after"])
    assert 1 <= wait <= 3
    time.sleep(wait)  # what is tested is that this very time is enough
    assert service.banned(1, key).status == 400


def test_quota_of_a_key_and_of_the_settings(make: Make) -> None:
    """The settings' quota is for keys without their own; strangers use up nobody's."""
    service = make(serve__requests=2, serve__window=60)
    own, default = service.key("own", "--requests", "3"), service.key("plain", "default")
    service.start()
    for _ in range(10):
        assert service.banned(1, "stranger").shown == REFUSED
    assert [service.banned(1, own).status for _ in range(4)] == [400] * 3 + [429]
    answers = [service.banned(1, default) for _ in range(3)]
    assert [answer.status for answer in answers] == [400, 400, 429]
    assert int(answers[-1].headers["retry-after"]) <= 61


def test_keys_appear_nowhere(make: Make, tmp_path: Path) -> None:
    """Neither in what the process prints, nor in its command line, nor in any answer."""
    service = make()
    key, pot = service.keys["reader"], service.keys["pot"]
    service.start()
    paths = ["banned", "banned/100", "banned/x", "check/x", "check/45.80.0.1", "x", "", "banned/"]
    answers = [service.get(f"{key}/{path}") for path in paths]
    answers += [service.ask("GET", f"{path}?x={key}") for path in ("/health", "/x", "/", "/key")]
    answers += [service.ask("GET", f"/ipset/{key}/list{end}") for end in ("", "/", "?y")]
    answers += [service.post(verb, key, b"{") for verb in ("get", "check", "report", "x")]
    answers += [service.report(pot, [sighting(host(1), 1, user_agent=key)])]
    answers += [service.ask(key[:8].upper(), f"/api/{key}/banned")]
    answers += [service.ask("GET", "/health", headers={"User-Agent": key, "Referer": f"/{key}/"})]
    for answer in answers:
        assert key not in str(answer.headers)
        assert key.encode() not in answer.body
    raw = [f"GET /api/{key}/banned HTTP/9.9\r\n\r\n", f"GET /api/{key}/ban ned HTTP/1.1\r\n\r\n"]
    raw += [
        f"GET /api/{key}/banned HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        f"{key}\r\n\r\n",
    ]
    raw += [f"GET http://x/api/{key}/banned HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"]
    for text in raw:
        assert key.encode() not in service.exchange(text.encode(), 5, close=True)
    assert key.encode() not in Path(f"/proc/{service.pid}/cmdline").read_bytes()
    service.stop()
    assert key not in service.output()
    assert pot not in service.output()
    for file in service.folder.rglob("*"):
        if file.is_file():
            assert pot.encode() not in file.read_bytes(), file


def test_what_holds_key_hashes_is_for_its_owner(make: Make) -> None:
    """The database has the keys' hashes, addresses and evidence: others cannot read it."""
    service = make()
    service.start()
    open_to_others = [
        file for file in service.folder.glob("feed.db*") if file.stat().st_mode & 0o007
    ]
    assert open_to_others == []
