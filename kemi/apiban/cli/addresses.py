"""What the writing commands are given: addresses as words, or a list of them line by line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.exceptions import Exit

from apiban.address import Network, parse_network
from apiban.cli.show import BadAddress, cut, printable
from apiban.cli.words import Kind
from apiban.errors import AddressError, ApibanError
from apiban.verdict.wanted import Refused, Wanted

__all__ = ["Bad", "Given", "document", "given", "say_bad", "say_each", "skip_bad", "targets"]

_STDIN: Final = "-"
_LONGEST_REASON: Final = 200
# So many are named one by one, and of what is bad so many.
_NAMED: Final = 5
_BAD_NAMED: Final = 100
# All of a list is one change, for which everybody else has to wait: seconds, not minutes.
_LONGEST_LIST: Final = 50_000
_LARGEST: Final = 32 << 20

_Command = TypeVar("_Command", bound=Callable[..., Any])

skip_bad = click.option("--skip-bad", is_flag=True, help="Leave out what is bad, do the rest.")


@dataclass(frozen=True, slots=True)
class Bad:
    """A line of a list that is no address, and why."""

    line: int
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Given:
    """What was read, in its order."""

    wanted: tuple[Wanted, ...]
    bad: tuple[Bad, ...]


class _Target(Kind[Network | str]):
    """An address, a network in CIDR form, or ``-`` for the standard input."""

    name = "address"

    def convert(self, value: Any, param: Any, ctx: Any) -> Network | str:  # noqa: ARG002 - click's
        """Give the network; ``-`` as it is."""
        if value == _STDIN or isinstance(value, Network):
            return str(value) if value == _STDIN else value
        try:
            return parse_network(value)
        except AddressError as error:
            raise BadAddress(str(error)) from None


def targets(command: _Command) -> _Command:
    """Give a command its addresses, and a list's file."""
    file = click.option(
        "--file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A list: an address or network a line, then its reason; # begins a comment.",
    )
    words = click.argument("addresses", type=_Target(), nargs=-1, metavar="IP|CIDR...|-")
    return words(file(command))


def given(addresses: Sequence[Network | str], file: Path | None, reason: str) -> Given:
    """Read what was named; a line without a reason of its own has this one.

    Raises:
        click.UsageError: nothing was named, or more than one list.
        ApibanError: the file cannot be read, or the reason is none.

    """
    lists = addresses.count(_STDIN) + (file is not None)
    if lists > 1:
        raise click.UsageError("one list at a time")
    if not addresses and not lists:
        raise click.UsageError("an address or a network is wanted; - reads them from the input")
    try:
        reason = _reason(reason)
    except ValueError as error:
        raise ApibanError(str(error)) from None
    wanted = [Wanted(one, reason) for one in addresses if isinstance(one, Network)]
    bad: list[Bad] = []
    if lists:
        for one in _read(_content(file).split(b"\n"), reason):
            if isinstance(one, Bad):
                bad.append(one)
            else:
                wanted.append(one)
    return Given(tuple(wanted), tuple(bad))


def say_bad(asked: Given, refused: Sequence[Refused], *, done: bool) -> None:
    """Name each that is not done; when nothing is, the command ends with that.

    Raises:
        Exit: with status 1, unless what is good was done.

    """
    lines = [(one.line, one.why) for one in asked.bad]
    lines += [(one.wanted.line, f"{one.wanted.network} {one.why}") for one in refused]
    lines.sort(key=lambda one: one[0])
    for line, text in lines[:_BAD_NAMED]:
        click.echo("apiban: " + (f"line {line}: " if line else "") + printable(text), err=True)
    if len(lines) > _BAD_NAMED:
        click.echo(f"apiban: and {len(lines) - _BAD_NAMED:,} more (--json names all)", err=True)
    total = len(asked.wanted) + len(asked.bad)
    if lines and total > 1:
        end = "left out" if done else "nothing was changed; --skip-bad leaves them out"
        click.echo(f"apiban: {len(lines):,} of {total:,} cannot be done: {end}", err=True)
    if not done:
        raise Exit(1)


def say_each(lines: Sequence[str], more: str) -> None:
    """Say each of a few; of many ``more`` says the number, in the place of its braces."""
    for line in lines if len(lines) <= _NAMED else [more.format(f"{len(lines):,}")]:
        click.echo(printable(line))


def document(asked: Given, refused: Sequence[Refused]) -> list[dict[str, object]]:
    """Give what is not done, for machines; ``line`` is null for the command line."""
    said: list[dict[str, object]] = [
        {"line": one.line, "address": one.text, "why": one.why} for one in asked.bad
    ]
    said += [
        {"line": one.wanted.line or None, "address": str(one.wanted.network), "why": one.why}
        for one in refused
    ]
    return said


def _content(file: Path | None) -> bytes:
    """Read a list whole, of any sensible size.

    Raises:
        ApibanError: it cannot be read, or it is too long.

    """
    name = "the standard input" if file is None else str(file)
    try:
        if file is not None:
            with file.open("rb") as opened:
                content = opened.read(_LARGEST + 1)
        elif sys.stdin is None:
            raise ApibanError(f"{name} is closed")
        else:
            content = sys.stdin.buffer.read(_LARGEST + 1)
    except OSError as error:
        raise ApibanError(f"{name}: {error.strerror}") from None
    if len(content) > _LARGEST or content.count(b"\n") > _LONGEST_LIST:
        raise ApibanError(
            f"{name}: more than {_LONGEST_LIST:,} lines at a time: divide it (split -l)"
        )
    return content.removeprefix(b"\xef\xbb\xbf")


def _read(lines: Iterable[bytes], reason: str) -> Iterator[Wanted | Bad]:
    for number, raw in enumerate(lines, start=1):
        text = raw.decode("utf-8", "backslashreplace").strip()
        if not text or text.startswith("#"):
            continue
        word, _, rest = text.replace("\t", " ").partition(" ")
        try:
            own = "" if rest.lstrip().startswith("#") else _reason(rest)
            yield Wanted(parse_network(word), own or reason, number)
        except ValueError as error:  # an AddressError is one
            yield Bad(number, cut(printable(word), 60), printable(str(error)))


def _reason(text: str) -> str:
    text = " ".join(text.split())
    if not text.isprintable():
        raise ValueError("the reason holds what cannot be printed")
    if len(text) > _LONGEST_REASON:
        raise ValueError(f"the reason is longer than {_LONGEST_REASON} characters")
    return text
