"""Plain lists: an address or a network a line, ``#`` begins a comment."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from apiban.address import Network, parse_network
from apiban.errors import AddressError, ApibanError

__all__ = ["parse_list", "read_list"]


def read_list(path: Path) -> list[Network]:
    """Read a file of a plain list.

    Raises:
        ApibanError: the file cannot be read, or a line (which it names) is neither.

    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ApibanError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ApibanError(f"{path}: is not UTF-8 text") from None
    return parse_list(text.split("\n"), str(path))


def parse_list(lines: Iterable[str], name: str) -> list[Network]:
    """Read the lines of a plain list; each network comes once, in the order of the list.

    Raises:
        ApibanError: a line (which it names) is neither an address nor a network.

    """
    found: dict[Network, None] = {}
    for number, text in enumerate(lines, start=1):
        word = text.partition("#")[0].strip()
        if not word:
            continue
        try:
            found[parse_network(word)] = None
        except AddressError as error:
            raise ApibanError(f"{name}, line {number}: {error}") from None
    return list(found)
