"""The look-ups that are timed."""

from __future__ import annotations

from pathlib import Path

import pytest
from apiban.bench.lists import Listing
from apiban.bench.lookup import measure_builds, measure_look_ups
from apiban.bench.machine import BenchError


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    """Give a short list."""
    return Listing.make(tmp_path / "list", 300)


def test_each_kind_of_each_list_is_timed(listing: Listing) -> None:
    """Building gives the snapshot that the look-ups then need; every time is above nothing."""
    (build,) = measure_builds({300: listing}, 1)
    found = measure_look_ups({300: listing}, 1, lambda _: None)
    assert build.seconds.median > 0
    assert [(one.ranges, one.kind) for one in found] == [
        (300, "unlisted, again"),
        (300, "unlisted"),
        (300, "listed"),
        (300, "listed, met first"),
    ]
    assert all(one.nanoseconds.median > 0 for one in found)


def test_a_snapshot_of_another_list_is_not_timed(listing: Listing) -> None:
    """A list said to be longer than it is would be measured wrongly, so it is refused."""
    listing.publish()
    with pytest.raises(BenchError):
        measure_look_ups({3000: listing}, 1, lambda _: None)
