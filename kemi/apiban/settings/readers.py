"""Readers of settings: from TOML, or from a text of the environment, to a typed value.

Each gives the value, or raises ``ValueError`` with what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from apiban.address import Network, parse_network

__all__ = [
    "Reader",
    "Setting",
    "boolean",
    "choice",
    "list_of",
    "network",
    "number",
    "optional_path",
    "optional_url",
    "path",
    "text",
    "url",
    "version",
]

Reader = Callable[[Any], Any]

_PLAIN_URL = re.compile(r"(?:(?![?#@])[!-~])+")  # printable ASCII without a query or a user


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. ``name`` is ``section.name``, or a bare name at the top of the file."""

    name: str
    read: Reader
    default: Any
    prefix: str = "APIBAN_"

    @property
    def variable(self) -> str:
        """The environment variable that overrides it, such as ``APIBAN_FEED_INTERVAL``."""
        return self.prefix + self.name.replace(".", "_").upper()


def number(low: float, high: float, *, whole: bool = False) -> Reader:
    """Take a number from ``low`` to ``high``, both allowed."""
    kind = "a whole number" if whole else "a number"
    allowed = f"{kind} from {low:g} to {high:g}"

    def read(value: Any) -> float | int:
        if isinstance(value, str):
            try:
                value = int(value) if whole else float(value)
            except ValueError:
                raise ValueError(allowed) from None
        good = isinstance(value, int) or (isinstance(value, float) and not whole)
        if isinstance(value, bool) or not good or not low <= value <= high:
            raise ValueError(allowed)
        return int(value) if whole else float(value)

    return read


def boolean(value: Any) -> bool:
    """Take true or false."""
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, str):
        value = known.get(value.lower())
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004 - every reader says so with one type
    return value


def choice(*allowed: str) -> Reader:
    """Take one of a few words."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise ValueError("one of " + ", ".join(allowed))
        return value

    return read


def url(value: Any) -> str:
    """Take an HTTP URL that holds no secret, and give it with a slash at its end."""
    allowed = 'a URL such as "https://apiban.org/api/", without a key, a user or a query in it'
    if not isinstance(value, str):
        raise ValueError(allowed)  # noqa: TRY004
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"https", "http"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not _PLAIN_URL.fullmatch(value):
        raise ValueError(allowed)
    return value if value.endswith("/") else value + "/"


def optional_url(value: Any) -> str:
    """Take an HTTP URL, or "" for none."""
    return "" if value == "" else url(value)


def path(value: Any) -> Path:
    """Take an absolute path."""
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError("an absolute path")
    return Path(value)


def optional_path(value: Any) -> Path | None:
    """Take an absolute path, or "" for none."""
    return None if value == "" else path(value)


def list_of(read_one: Callable[[str], Any], allowed: str) -> Reader:
    """Take a list of texts, or one text of them with commas or blanks between."""

    def read(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str):
            value = [part for part in re.split(r"[,\s]+", value) if part]
        if not isinstance(value, list):
            raise ValueError(f"a list of {allowed}")  # noqa: TRY004
        found, wrong = [], []
        for item in value:
            try:
                found.append(read_one(item if isinstance(item, str) else ""))
            except ValueError as error:
                wrong.append(str(error))
        if wrong:
            raise ValueError(f"a list of {allowed}; " + "; ".join(wrong))
        return tuple(found)

    return read


def network(text: str) -> Network:
    """Take an address or a network."""
    return parse_network(text)


def text(value: Any) -> str:
    """Take printable ASCII."""
    if not isinstance(value, str) or not value.isprintable() or not value.isascii():
        raise ValueError("a text of printable characters")
    return value


def version(value: Any) -> int:
    """Take the number of a version of the API."""
    if str(value) not in {"1", "2"} or isinstance(value, bool):
        raise ValueError("1 or 2")
    return int(value)
