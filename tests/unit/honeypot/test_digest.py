"""The PBX takes weak passwords, and no others."""

from __future__ import annotations

import hashlib

import pytest
from apiban.honeypot.digest import WEAK_PASSWORDS, read_credentials


def md5(text: str) -> str:
    """Give the hex digest."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def header(password: str, user: str = "100", qop: str = "", cnonce: str = "") -> str:
    """Answer a challenge as a client does."""
    first, last = md5(f"{user}:asterisk:{password}"), md5("REGISTER:sip:h")
    middle = f"n1:00000001:{cnonce}:{qop}" if cnonce else "n1"
    more = f', qop={qop}, nc=00000001, cnonce="{cnonce}"' if qop else ""
    return (
        f'Digest username="{user}", realm="asterisk", nonce="n1", uri="sip:h", '
        f'response="{md5(f"{first}:{middle}:{last}")}", algorithm=MD5{more}'
    )


@pytest.mark.parametrize("password", ["100", "100100", "001", *WEAK_PASSWORDS])
def test_weak_password_is_taken(password: str) -> None:
    """The user's own name and the usual ones."""
    read = read_credentials(header(password))
    assert read is not None
    assert read.weak("REGISTER")
    assert not read.weak("INVITE")


@pytest.mark.parametrize("password", ["Tr0ub4dor&3", "", "1000"])
def test_other_password_is_not(password: str) -> None:
    """A guess that is wrong stays wrong."""
    read = read_credentials(header(password))
    assert read is not None
    assert not read.weak("REGISTER")


def test_quality_of_protection() -> None:
    """With a cnonce it counts; svcrack names it without one, and leaves it out of the sum."""
    for value in (header("1234", qop="auth", cnonce="c"), header("1234", qop="auth")):
        read = read_credentials(value)
        assert read is not None
        assert read.weak("REGISTER")


def test_fields_are_read_as_they_come() -> None:
    """Quoted or not, escaped, in any order and case."""
    read = read_credentials('DIGEST Response=ab ,nonce="a\\"b",USERNAME="x y"')
    assert read is not None
    assert (read.user, read.nonce, read.response) == ("x y", 'a"b', "ab")


def test_quote_without_an_end_goes_to_the_end() -> None:
    """And what stands in it is no field of its own."""
    read = read_credentials('Digest username="a", nonce="b, response=c')
    assert read is not None
    assert (read.user, read.nonce, read.response) == ("a", "b, response=c", "")


@pytest.mark.parametrize("value", ["", "Basic aGk6aG8=", "Bearer x", "Digestive"])
def test_other_schemes_are_none(value: str) -> None:
    """A password in clear text is not even looked at."""
    assert read_credentials(value) is None


def test_repr_shows_nothing() -> None:
    """Not in a log, nor in a traceback."""
    assert "n1" not in repr(read_credentials(header("1234")))
