"""Nonces prove that their bearer reads what is sent to one address, port and transport."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from apiban.address import pack
from apiban.honeypot.nonce import Nonces, load_secret
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clock import ManualClock

SECRET = bytes(range(32))
ME = ("192.0.2.1", 5060, "udp")

addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
callers = st.tuples(addresses, st.integers(0, 65535), st.sampled_from(["udp", "tcp", "tls"]))


def nonces(clock: ManualClock | None = None, secret: bytes = SECRET) -> Nonces:
    """Give nonces that live for a minute."""
    return Nonces(secret, lifetime=60.0, now=(clock or ManualClock()).now)


@given(callers)
def test_own_nonce_is_good_for_its_caller(caller: tuple[str, int, str]) -> None:
    """Whatever the family, port and transport; it is 40 characters that need no escape."""
    ours = nonces()
    nonce = ours.make(*caller)
    assert re.fullmatch(r"[A-Za-z0-9_-]{40}", nonce)
    assert ours.check(nonce, *caller)


@given(callers, callers)
def test_nonce_of_another_caller_is_refused(
    mine: tuple[str, int, str], other: tuple[str, int, str]
) -> None:
    """Another address, port or transport has no use for it."""
    ours = nonces()
    same = ours.check(ours.make(*mine), *other)
    assert same == ((pack(mine[0]), *mine[1:]) == (pack(other[0]), *other[1:]))


@pytest.mark.parametrize(
    "other", [("192.0.2.2", 5060, "udp"), ("192.0.2.1", 5061, "udp"), ("192.0.2.1", 5060, "tcp")]
)
def test_each_part_of_the_caller_counts(other: tuple[str, int, str]) -> None:
    """Address, port and transport alone make a difference."""
    ours = nonces()
    assert not ours.check(ours.make(*ME), *other)


@given(st.integers(0, 29), st.integers(1, 255))
def test_changed_nonce_is_refused(place: int, change: int) -> None:
    """No byte of it can be another: time, salt and MAC all count."""
    import base64

    ours = nonces()
    raw = bytearray(base64.urlsafe_b64decode(ours.make(*ME)))
    raw[place] ^= change
    assert not ours.check(base64.urlsafe_b64encode(raw).decode(), *ME)


@given(st.one_of(st.text(max_size=60), st.text("ABCab-_+/=\0é", min_size=40, max_size=40)))
def test_anything_else_is_refused_without_an_error(text: str) -> None:
    """Whatever somebody writes there."""
    assert not nonces().check(text, *ME)


def test_lifetime() -> None:
    """It is good until it is a minute old, and not before it was made."""
    clock = ManualClock()
    ours = nonces(clock)
    nonce = ours.make(*ME)
    clock.tick(59.9)
    assert ours.check(nonce, *ME)
    clock.tick(0.1)
    assert not ours.check(nonce, *ME)
    clock.tick(-61)
    assert not ours.check(nonce, *ME)


def test_another_secret_makes_other_nonces() -> None:
    """Another honeypot's are no use here."""
    assert not nonces(secret=bytes(32)).check(nonces().make(*ME), *ME)


def test_no_two_are_alike() -> None:
    """Not even in the same millisecond."""
    ours = nonces()
    assert len({ours.make(*ME) for _ in range(100)}) == 100


def test_mapped_ipv4_is_the_same_caller() -> None:
    """A dual-stack listener names an IPv4 source in another way."""
    ours = nonces()
    assert ours.check(ours.make("::ffff:192.0.2.1", 5060, "udp"), *ME)


def test_secret_is_made_once_for_its_user_alone(tmp_path: Path) -> None:
    """32 random bytes, mode 0600, the same at the next start; no scratch file stays."""
    path = tmp_path / "secret"
    secret = load_secret(path)
    assert len(secret) == 32
    assert load_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    assert load_secret(tmp_path / "other") != secret


def test_damaged_secret_is_replaced(tmp_path: Path) -> None:
    """A cut file must not make guessable nonces."""
    path = tmp_path / "secret"
    path.write_bytes(b"short")
    assert len(load_secret(path)) == 32
