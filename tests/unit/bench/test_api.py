"""The benchmark's API."""

from __future__ import annotations

import threading
import time

import requests
from apiban.bench.api import API_KEY, Api, HeldPages, Limit, no_news, pages_of
from apiban.bench.lists import addresses


def _ask(api: Api, path: str) -> tuple[int, dict[str, object]]:
    answer = requests.get(f"{api.base}{API_KEY}/{path}", timeout=10)
    return answer.status_code, answer.json()


def test_a_list_comes_in_pages_of_250_and_ends() -> None:
    """Two pages for 400 addresses, each ID asking for what comes after; then nothing new."""
    listed = addresses(0, 400)
    with Api(pages_of(listed)) as api:
        _, first = _ask(api, "banned")
        _, second = _ask(api, f"banned/{first['ID']}")
        status, end = _ask(api, f"banned/{second['ID']}")
        assert [*first["ipaddress"], *second["ipaddress"]] == listed  # type: ignore[misc]
        assert len(first["ipaddress"]) == 250  # type: ignore[arg-type]
        assert (status, end["ID"]) == (400, "none")
        give_up = time.monotonic() + 10
        while len(api.exchanges) < 3:  # noted once the answer is sent
            assert time.monotonic() < give_up
        assert len(api.pages) == 2
        assert all(one.asked <= one.answered for one in api.exchanges)


def test_what_is_over_the_limit_is_refused_and_counted() -> None:
    """Of three requests with a limit of two the last gets 429."""
    with Api(no_news, Limit(2, 60.0, now=lambda: 0.0)) as api:
        assert [_ask(api, "banned")[0] for _ in range(3)] == [400, 400, 429]
        assert api.refused == 1


def test_the_limit_is_a_sliding_window() -> None:
    """A request is granted again as soon as the first of the last two is a window old."""
    times = (0.0, 4.0, 9.9, 10.0, 13.9, 14.0)
    clock = iter(times)
    limit = Limit(2, 10.0, now=lambda: next(clock))
    granted = [limit.grants() for _ in times]
    assert granted == [True, True, False, True, False, True]


def test_a_page_is_held_back_until_it_is_released() -> None:
    """Whoever asks waits; the page comes once, and whoever asks then waits again."""
    held = HeldPages()
    answers = []
    with Api(held) as api:
        asker = threading.Thread(target=lambda: answers.append(_ask(api, "banned/100")))
        asker.start()
        assert held.wait_for_asker(10)
        assert not api.exchanges
        held.release(["192.0.2.1"])
        asker.join(10)
        assert answers == [(200, {"ipaddress": ["192.0.2.1"], "ID": "101"})]
        assert not held.wait_for_asker(0)
        held.close()
        assert _ask(api, "banned/101")[0] == 400
