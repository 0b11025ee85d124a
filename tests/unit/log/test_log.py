import re

import pytest
from apiban.log import EVENTS, LONGEST_VALUE, PREFIX, clean, line
from hypothesis import given
from hypothesis import strategies as st

# What clean adds at most: the three dots of a cut value, and two quotes.
MARGIN = 5

WORDS = st.text() | st.binary() | st.text(alphabet='ab"\\ =\n\r\t\0\x1b\x7f\xe9') | st.integers()
VALUES = WORDS | st.booleans() | st.none() | st.floats(width=16) | st.lists(st.text())
NAMES = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(lambda name: name != "event")

_FIELD = re.compile(r'(?P<name>[a-z_]+)=(?P<value>"[^"]*"|[^" =]+)(?: |$)')


def fields_of(text: str) -> list[tuple[str, str]]:
    """Read a line back, as a log parser would; all of it must be fields."""
    found, at = [], 0
    while at < len(text):
        match = _FIELD.match(text, at)
        assert match, f"no field at {at} of {text!r}"
        found.append((match["name"], match["value"]))
        at = match.end()
    return found


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        (7, "7"),
        (None, "None"),
        (True, "yes"),
        (False, "no"),
        (0.25, "0.2"),
        (float("inf"), "inf"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "x"', '"say \\x22x\\x22"'),
        ("a\r\nb", "a\\r\\nb"),
        ("a\tb\0c", "a\\tb\\x00c"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("del\x7f", "del\\x7f"),
        ("back\\slash", "back\\\\slash"),
        ("é", "\\xe9"),
        ("\u2028", "\\u2028"),
        ("\U0001f600", "\\U0001f600"),
        ("\ud800", "\\ud800"),
        (b"\xffSIP\r\n", "\\xffSIP\\r\\n"),
    ],
)
def test_value_is_shown_escaped(value: object, shown: str) -> None:
    """Line breaks, quotes, escapes and other scripts come out as ASCII escapes."""
    assert clean(value) == shown


@given(VALUES)
def test_any_value_is_one_short_printable_word(value: object) -> None:
    """ASCII, printable, bounded; a bare word has no space, equals sign or quote."""
    shown = clean(value)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= LONGEST_VALUE + MARGIN
    inner = shown[1:-1] if shown.startswith('"') else shown
    assert '"' not in inner
    assert shown.startswith('"') == shown.endswith('"')
    assert shown.startswith('"') or not set(shown) & set(" =")
    assert shown


@given(VALUES, st.integers(1, 400))
def test_length_is_the_one_asked_for(value: object, longest: int) -> None:
    """Escapes grow a value, and it is cut all the same."""
    if not isinstance(value, float):
        assert len(clean(value, longest)) <= longest + MARGIN


@pytest.mark.parametrize("value", ["x" * 161, "\n" * 100, b"\0" * 1_000_000])
def test_cut_value_says_so(value: object) -> None:
    """Three dots at the end tell that there was more."""
    assert clean(value).endswith("...")


def test_value_of_just_the_longest_length_is_whole() -> None:
    """The bound itself cuts nothing."""
    assert clean("x" * LONGEST_VALUE) == "x" * LONGEST_VALUE


@given(st.sampled_from(sorted(EVENTS)), st.dictionaries(NAMES, VALUES, max_size=5))
def test_no_value_forges_a_field(event: str, fields: dict[str, object]) -> None:
    """A line reads back as exactly the fields that were put in, in their order."""
    text = line(event, fields)
    assert text.startswith(PREFIX)
    assert text.isascii()
    assert text.isprintable()
    found = fields_of(text.removeprefix(PREFIX))
    assert found[0] == ("event", event)
    assert [name for name, _ in found[1:]] == list(fields)
    assert [value for _, value in found[1:]] == [clean(value) for value in fields.values()]


@pytest.mark.parametrize(
    "evil",
    [
        "x\napiban: event=mode mode=off",
        'x" event=mode mode="off',
        'x\\" mode="off',
        "x mode=off",
        b'x"\x0d\x0aapiban: event=mode',
    ],
)
def test_first_line_of_a_packet_stays_in_its_field(evil: object) -> None:
    """The classic forgeries end up inside the one value."""
    text = line("first-drop", {"source": "192.0.2.1", "first": evil, "port": 5060})
    found = fields_of(text.removeprefix(PREFIX))
    assert [name for name, _ in found] == ["event", "source", "first", "port"]


def test_events_have_kamailios_levels() -> None:
    """Each event is a plain name with a level that KSR has a function for."""
    for event, level in EVENTS.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", event)
        assert level in {"info", "notice", "warn", "err"}
