import shutil
import subprocess
import time
from typing import Any

import pytest

from tests.contract.feed.conftest import Make
from tests.support.api import KEY, Api
from tests.support.feedservice import FeedService, environ, host, hosts, sighting
from tests.support.node import wait_for

UPSTREAM = hosts(600)


def hub(make: Make, url: str, upstream_key: str, **settings: Any) -> FeedService:
    """Give a feed that mirrors, not started."""
    service = make(
        mirror__url=url,
        mirror__key=upstream_key,
        **{"mirror__interval": 1, "mirror__requests": 1000, "mirror__window": 1, **settings},
    )
    service.keys["upstream"] = upstream_key
    return service


def holds(service: FeedService, wanted: list[str], seconds: float = 15) -> None:
    """Wait until a feed lists these and no other."""
    key = service.keys["reader"]
    wait_for(lambda: sorted(service.listed(key)) == sorted(wanted), "the merged list", seconds)


def test_hubs_merge_and_outlive_their_upstream(make: Make) -> None:
    """Upstream's and its own, each once; upstream down, killed and back: clients see no change.

    One hub asks in each version of the API; both wait out the same time without an upstream.
    """
    upstream = make()
    upstream.cli("import", "-", stdin="\n".join(UPSTREAM))
    keys = [(upstream.key(f"hub{number}"), number) for number in (1, 2)]
    upstream.start()
    hubs = [hub(make, upstream.url, key, mirror__version=number).start() for key, number in keys]

    def report(source: str, sequence: int) -> None:
        for service in hubs:
            answer = service.report(service.keys["pot"], [sighting(source, sequence)])
            assert answer.status == 200

    def hold(*own: str, seconds: float) -> None:
        for service in hubs:
            holds(service, [*UPSTREAM, *own], seconds)

    report(host(0), 1)
    report(host(5000), 2)
    hold(host(5000), seconds=15)
    upstream.stop()
    for service in hubs:
        service.kill()
        service.start()
    hold(host(5000), seconds=3)
    report(host(5001), 3)
    hold(host(5000), host(5001), seconds=5)
    upstream.start()
    upstream.cli("list", host(7000))
    # The pause after a failure is of up to 12.5 seconds.
    hold(host(5000), host(5001), host(7000), seconds=30)


@pytest.mark.parametrize("number", [1, "1", 2, "2"])
def test_version_of_upstream_is_a_number_or_its_text(make: Make, number: int | str) -> None:
    """The documentation does not quote it, and TOML has numbers."""
    service = hub(make, "http://127.0.0.1:9/api/", KEY, mirror__version=number)
    assert service.run("check").stderr == ""


def test_mirror_in_a_process_of_its_own(make: Make) -> None:
    """``mirror`` beside a ``serve --no-mirror``, which does not ask upstream by itself."""
    api = Api(UPSTREAM[:300])
    service = hub(make, api.url, KEY).start("--no-mirror")
    beacon = service.report(service.keys["pot"], [sighting(host(5000), 1)])
    assert beacon.status == 200
    holds(service, [host(5000)])
    assert api.requests == []
    mirror = subprocess.Popen(
        service.command("mirror"), env=environ(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        holds(service, [*UPSTREAM[:300], host(5000)])
    finally:
        mirror.terminate()
        output, _ = mirror.communicate(timeout=15)
        api.stop()
    assert mirror.returncode in {0, -15}
    assert KEY.encode() not in output


def test_mirror_keeps_to_its_budget(make: Make) -> None:
    """Never more than three requests in any four seconds, restarts included."""
    api = Api(UPSTREAM)
    service = hub(make, api.url, KEY, mirror__requests=3, mirror__window=4, mirror__interval=1)
    service.start()
    try:
        wait_for(lambda: len(api.requests) >= 3, "the first requests", 10)
        service.kill()
        service.start()
        wait_for(lambda: len(api.requests) >= 7, "more of them", 20)
    finally:
        service.stop()
        api.stop()
    times = [when for when, _ in api.requests]
    for first, fourth in zip(times, times[3:], strict=False):
        assert fourth - first >= 4 - 0.05


@pytest.mark.parametrize("mode", ["failing", "garbage", "unauthorized", "empty", "limited"])
def test_upstream_that_misbehaves_takes_nothing_away(make: Make, mode: str) -> None:
    """Whatever it answers after a good pass, its last good list is served."""
    api = Api(UPSTREAM[:300])
    service = hub(make, api.url, KEY).start()
    try:
        holds(service, UPSTREAM[:300])
        api.mode = mode
        asked = len(api.requests)
        wait_for(lambda: len(api.requests) > asked, "a question in this mode", 10)
        holds(service, UPSTREAM[:300], 3)
        service.stop()
        service.start()
        holds(service, UPSTREAM[:300], 3)
    finally:
        api.stop()


def test_upstream_lists_what_it_may_not(make: Make) -> None:
    """Private, never-listed and over-wide entries of an upstream are not handed on."""
    bad = ["10.0.0.1", "127.0.0.1", "8.8.8.8", "0.0.0.0/0", "45.0.0.0/8"]
    api = Api([*UPSTREAM[:3], *bad, *UPSTREAM[3:10]])
    service = hub(make, api.url, KEY)
    service.start()
    try:
        holds(service, UPSTREAM[:10])
        assert sorted(service.listed(service.keys["every"])) == sorted(UPSTREAM[:10])
    finally:
        api.stop()


def test_what_upstream_delists_goes_after_a_full_pass(make: Make) -> None:
    """A mirror without its state makes one at its start; what the own honeypots saw stays."""
    api = Api(UPSTREAM[:300])
    service = hub(make, api.url, KEY).start()
    try:
        holds(service, UPSTREAM[:300])
        service.report(service.keys["pot"], [sighting(host(2), 1), sighting(host(9000), 2)])
        holds(service, [*UPSTREAM[:300], host(9000)])
        api.feed.remove(host(1), host(2))
        left = [one for one in UPSTREAM[:300] if one != host(1)]
        service.stop()
        shutil.rmtree(service.folder / "mirror")
        service.start()
        holds(service, [*left, host(9000)], 10)
    finally:
        api.stop()


def test_delisted_here_stays_off_whatever_upstream_says(make: Make) -> None:
    """The operator's word is the last."""
    api = Api(UPSTREAM[:20])
    service = hub(make, api.url, KEY).start()
    try:
        holds(service, UPSTREAM[:20])
        service.cli("delist", host(4))
        api.feed.add(host(4), host(700))
        holds(service, [one for one in [*UPSTREAM[:20], host(700)] if one != host(4)])
        time.sleep(1.5)  # another round of the mirror
        assert host(4) not in service.listed(service.keys["reader"])
    finally:
        api.stop()
