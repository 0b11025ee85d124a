from itertools import pairwise

import pytest
from apiban.snapshot.compile import Range, compile_ranges
from hypothesis import given
from hypothesis import strategies as st

_LAST = 40
_ends = st.tuples(st.integers(0, _LAST), st.integers(0, _LAST)).map(sorted)
_bans = st.lists(
    st.tuples(_ends, st.integers(1, 4), st.integers(0, 2)).map(lambda t: (*t[0], *t[1:])),
    max_size=12,
)
_holes = st.lists(_ends.map(tuple), max_size=5)


def _model(bans: list[Range], holes: list[tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """Give each banned number, its longest ban and that one's origin, by trying them all."""
    allowed = {number for first, last in holes for number in range(first, last + 1)}
    longest: dict[int, tuple[int, int]] = {}
    for first, last, expires, origin in sorted(bans, key=lambda ban: (ban[2], -ban[3])):
        for number in range(first, last + 1):
            if number not in allowed:
                longest[number] = expires, origin
    return longest


@given(_bans, _holes)
def test_ranges_are_those_of_a_plain_model(bans: list[Range], holes: list[tuple[int, int]]) -> None:
    """Each number has the longest of its bans with its origin, and an allowed one has none."""
    ranges = compile_ranges(sorted(bans, key=lambda ban: ban[0]), holes)
    found = {
        n: (expires, by) for first, last, expires, by in ranges for n in range(first, last + 1)
    }
    assert found == _model(bans, holes)


@given(_bans, _holes)
def test_ranges_are_sorted_disjoint_and_merged(
    bans: list[Range], holes: list[tuple[int, int]]
) -> None:
    """No two ranges overlap, and no two neighbours could be one."""
    ranges = compile_ranges(sorted(bans, key=lambda ban: ban[0]), holes)
    assert all(first <= last for first, last, *_ in ranges)
    for (_, end, *ban), (start, _, *following) in pairwise(ranges):
        assert end < start
        assert end + 1 < start or ban != following


@pytest.mark.parametrize(
    ("bans", "holes", "expected"),
    [
        pytest.param([], [], [], id="nothing"),
        pytest.param([], [(0, 9)], [], id="nothing-banned"),
        pytest.param([(0, 9, 1, 0)], [(0, 9)], [], id="all-allowed"),
        pytest.param([(3, 5, 1, 0)], [(0, 9)], [], id="allowed-is-wider"),
        pytest.param([(0, 9, 1, 0)], [(4, 5)], [(0, 3, 1, 0), (6, 9, 1, 0)], id="hole"),
        pytest.param(
            [(0, 9, 1, 0)], [(4, 4), (5, 5)], [(0, 3, 1, 0), (6, 9, 1, 0)], id="holes-touch"
        ),
        pytest.param([(1, 1, 5, 0), (2, 2, 5, 0)], [], [(1, 2, 5, 0)], id="neighbours"),
        pytest.param(
            [(1, 1, 5, 0), (2, 2, 6, 0)], [], [(1, 1, 5, 0), (2, 2, 6, 0)], id="other-expiry"
        ),
        pytest.param(
            [(0, 9, 1, 0), (4, 5, 2, 0)],
            [],
            [(0, 3, 1, 0), (4, 5, 2, 0), (6, 9, 1, 0)],
            id="longer-inside",
        ),
        pytest.param([(0, 9, 2, 0), (4, 5, 1, 0)], [], [(0, 9, 2, 0)], id="shorter-inside"),
        pytest.param([(0, 5, 1, 0), (4, 9, 2, 0)], [], [(0, 3, 1, 0), (4, 9, 2, 0)], id="overlap"),
        pytest.param(
            [(0, 9, 2, 1), (4, 5, 2, 0)],
            [],
            [(0, 3, 2, 1), (4, 5, 2, 0), (6, 9, 2, 1)],
            id="a-tie-is-the-feeds",
        ),
        pytest.param([(0, 9, 2, 0), (4, 5, 2, 1)], [], [(0, 9, 2, 0)], id="a-tie-the-other-way"),
        pytest.param(
            [(1, 1, 5, 0), (2, 2, 5, 2)], [], [(1, 1, 5, 0), (2, 2, 5, 2)], id="other-origin"
        ),
        pytest.param(
            [(0, 9, 3, 0), (4, 5, 9, 1)],
            [(5, 5)],
            [(0, 3, 3, 0), (4, 4, 9, 1), (6, 9, 3, 0)],
            id="origin-of-the-longest",
        ),
    ],
)
def test_settled_cases(
    bans: list[Range], holes: list[tuple[int, int]], expected: list[Range]
) -> None:
    """The cases that a reader thinks of first."""
    assert compile_ranges(bans, holes) == expected


def test_ends_of_the_address_space() -> None:
    """The first and the last address of IPv6 are numbers as others are."""
    top = 2**128 - 1
    assert compile_ranges([(0, top, 9, 1)], [(0, 0), (top, top)]) == [(1, top - 1, 9, 1)]
