import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from apiban.feed.server.page.chart import (
    FRAME,
    WIDTH,
    Amount,
    Series,
    bars,
    lines,
    ticks,
    time_ticks,
)
from hypothesis import given
from hypothesis import strategies as st

DAY = 86400.0
BEGIN = 1_800_000_000.0
SVG = "{http://www.w3.org/2000/svg}"


def parsed(drawing: str) -> ET.Element:
    """Read a drawing as XML."""
    return ET.fromstring(drawing)  # noqa: S314 - of our own making


def drawn(*series: Series, end: float = BEGIN + 7 * DAY, gap: float = 3 * 3600) -> ET.Element:
    """Draw lines, and read the drawing as XML."""
    return parsed(lines("test", "Title", series, begin=BEGIN, end=end, gap=gap))


def spots(drawing: ET.Element, kind: str = "line") -> list[list[tuple[float, float]]]:
    """Give the points of each path."""
    return [
        [(float(x), float(y)) for x, y in re.findall(r"([-\d.]+) ([-\d.]+)", path.get("d", ""))]
        for path in drawing.iter(SVG + "path")
        if path.get("class", "").startswith(kind)
    ]


def texts(drawing: ET.Element) -> list[str]:
    """Give what is written."""
    return ["".join(text.itertext()) for text in drawing.iter(SVG + "text")]


def test_a_line_goes_from_corner_to_corner() -> None:
    """The first moment is at the left edge, the last at the right, 0 at the bottom."""
    drawing = drawn(Series("a", ((BEGIN, 0), (BEGIN + 7 * DAY, 100))), gap=8 * DAY)
    left_bottom, right_top = (FRAME.left, FRAME.bottom), (FRAME.right, FRAME.top)
    assert spots(drawing) == [[left_bottom, right_top]]
    assert spots(drawing, "area")[0] == [left_bottom, right_top, (FRAME.right, FRAME.bottom),
                                         left_bottom]  # fmt: skip


def test_half_the_value_is_half_as_high() -> None:
    """The axis begins at 0 and ends at a round number."""
    drawing = drawn(Series("a", ((BEGIN, 50), (BEGIN + 3600, 100))))
    (_, y), _ = spots(drawing)[0]
    assert y == (FRAME.top + FRAME.bottom) / 2
    assert {"0", "20", "100"} <= set(texts(drawing))


def test_no_points_say_so() -> None:
    """An empty chart has its axes, and words instead of a line."""
    drawing = drawn(Series("a", ()))
    assert spots(drawing) == []
    assert "No data yet" in texts(drawing)
    assert drawing.findtext(SVG + "desc") == "a: no data yet."


def test_no_series_say_so() -> None:
    """The same with nothing to name."""
    assert "No data yet" in texts(drawn())


def test_one_point_is_a_dot() -> None:
    """A single point would be no line."""
    drawing = drawn(Series("a", ((BEGIN, 5),)))
    (dot,) = drawing.iter(SVG + "circle")
    assert (dot.get("cx"), dot.get("cy")) == (f"{FRAME.left:.1f}", f"{FRAME.top:.1f}")
    assert spots(drawing) == []


def test_a_gap_breaks_the_line() -> None:
    """Hours without a count are not drawn over."""
    hours = (0, 1, 2, 10, 11)
    drawing = drawn(Series("a", tuple((BEGIN + 3600 * hour, 5) for hour in hours)))
    assert [len(line) for line in spots(drawing)] == [3, 2]


def test_points_outside_of_the_time_are_left_out() -> None:
    """Neither an earlier nor a later point is drawn, nor counts for the scale."""
    series = Series("a", ((BEGIN - 1, 9e9), (BEGIN, 1), (BEGIN + 60, 1), (BEGIN + 8 * DAY, 9e9)))
    drawing = drawn(series)
    assert [len(line) for line in spots(drawing)] == [2]
    assert max(y for _, y in spots(drawing)[0]) == FRAME.top


def test_each_series_has_its_own_line_and_name() -> None:
    """They differ by class, which the stylesheet colours and dashes."""
    points = ((BEGIN, 1.0), (BEGIN + 60, 2.0))
    drawing = drawn(Series("sip", points), Series("http", points))
    classes = [path.get("class") for path in drawing.iter(SVG + "path")]
    assert classes == ["area s0", "line s0", "area s1", "line s1"]
    assert {"sip", "http"} <= set(texts(drawing))


def test_the_words_tell_the_numbers() -> None:
    """Who cannot see the drawing gets title and figures."""
    drawing = drawn(Series("sip", ((BEGIN, 100), (BEGIN + 3600, 1200), (BEGIN + 7200, 300))))
    assert drawing.get("role") == "img"
    assert drawing.get("aria-labelledby") == "test-title test-desc"
    title, desc = drawing.find(SVG + "title"), drawing.find(SVG + "desc")
    assert title is not None
    assert desc is not None
    assert (title.get("id"), title.text, desc.get("id")) == ("test-title", "Title", "test-desc")
    assert desc.text == "sip: 300 at 2027-01-15 10:00 UTC, between 100 and 1,200."


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.floats(BEGIN - DAY, BEGIN + 40 * DAY), st.floats(0, 1e18, allow_nan=False)
            ),
            max_size=30,
        ),
        max_size=3,
    ),
    st.floats(0, 40 * DAY),
    st.floats(0, 2 * DAY),
)
def test_every_point_lies_inside_the_frame(
    given_points: list[list[tuple[float, float]]], span: float, gap: float
) -> None:
    """Whatever the numbers, and not a point of the time is lost."""
    series = [Series("x", tuple(sorted(points))) for points in given_points]
    drawing = drawn(*series, end=BEGIN + span, gap=gap)
    found = [spot for line in spots(drawing) for spot in line]
    found += [
        (float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in drawing.iter(SVG + "circle")
    ]
    wanted = [p for points in given_points for p in points if BEGIN <= p[0] <= BEGIN + span]
    assert len(found) == len(wanted)
    for x, y in found:
        assert FRAME.left <= x <= FRAME.right
        assert FRAME.top <= y <= FRAME.bottom


@given(st.one_of(st.floats(0, 1e18), st.integers(0, 10**18)))
def test_ticks_are_few_even_and_high_enough(highest: float) -> None:
    """From 0 to the top in equal round steps."""
    steps = ticks(highest)
    assert steps[0] == 0
    assert steps[-1] >= highest
    assert 2 <= len(steps) <= 6
    assert len({b - a for a, b in pairwise(steps)}) == 1
    assert str(steps[1]).rstrip("0") in {"1", "2", "5"}


@given(st.integers(0, 4 * 10**9), st.integers(0, 10**9))
def test_time_ticks_are_few_and_in_time(begin: int, span: int) -> None:
    """Never more than fit, nor outside of the axis."""
    times = [at for at, _ in time_ticks(begin, begin + span)]
    assert len(times) <= 6
    assert times == sorted(times)
    assert all(begin <= at <= begin + span for at in times)


def test_time_ticks_are_at_midnight_or_on_the_hour() -> None:
    """A week shows days, a day shows hours, in UTC."""
    assert [label for _, label in time_ticks(BEGIN, BEGIN + 7 * DAY)] == [
        "16 Jan", "18 Jan", "20 Jan", "22 Jan"
    ]  # fmt: skip
    assert [label for _, label in time_ticks(BEGIN, BEGIN + DAY)] == [
        "12:00", "18:00", "00:00", "06:00"
    ]  # fmt: skip


def bar_widths(drawing: ET.Element) -> list[float]:
    """Give how long the bars are."""
    return [
        float(bar.get("width", "")) for bar in drawing.iter(SVG + "rect")
        if bar.get("class") == "bar"
    ]  # fmt: skip


def test_bars_are_as_long_as_their_numbers() -> None:
    """The largest fills the width."""
    drawing = parsed(bars("test", "T", [Amount("a", 2000), Amount("b", 500)]))
    assert bar_widths(drawing) == [WIDTH, WIDTH / 4]
    assert texts(drawing) == ["a", "2,000", "b", "500"]
    assert drawing.findtext(SVG + "desc") == "a: 2,000, b: 500"


@pytest.mark.parametrize(
    ("amounts", "words"), [([], "No data yet"), ([Amount("a", 0)], "0"), ([Amount("a", 1)], "1")]
)
def test_bars_of_nothing_and_of_one(amounts: list[Amount], words: str) -> None:
    """Nothing is said in words; zero is a bar of no length, whatever there is to compare."""
    drawing = parsed(bars("test", "T", amounts))
    assert words in texts(drawing)
    assert bar_widths(drawing) == [one.value * WIDTH for one in amounts]


@given(st.lists(st.integers(0, 10**18), max_size=15))
def test_every_bar_lies_inside_the_drawing(values: list[int]) -> None:
    """Each has a row of its own, and none is wider than the chart."""
    drawing = parsed(bars("test", "T", [Amount("a", value) for value in values]))
    height = float(drawing.get("viewBox", "").split()[3])
    tops = [float(b.get("y", "")) for b in drawing.iter(SVG + "rect") if b.get("class") == "bar"]
    assert len(set(tops)) == len(values)
    assert all(0 <= top <= height - 8 for top in tops)
    assert all(0 <= width <= WIDTH for width in bar_widths(drawing))


@pytest.mark.parametrize("label", ["<script>x</script>", "\"&'", "a\x00\x1b[1m\u202eb", "x" * 64])
def test_labels_stay_labels(label: str) -> None:
    """What came in a packet is text, its control characters seen, cut to what fits."""
    for drawing in (
        parsed(bars("test", "T", [Amount(label, 1)])),
        drawn(Series(label, ((BEGIN, 1),))),
    ):
        assert not list(drawing.iter(SVG + "script"))
        shown = next(text for text in texts(drawing) if text.startswith(label[:1]))
        assert shown.isprintable()
        assert len(shown) <= 64
