"""How the commands show things: spans of time, numbers, JSON and CSV, a console of rich's.

rich is imported only where it draws: a command that prints a line starts without it.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn, TextIO

import click
from click.exceptions import Exit

from apiban.address import Network, parse_address
from apiban.cli.words import Kind, when
from apiban.errors import AddressError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "HOST",
    "BadAddress",
    "ago",
    "console",
    "cut",
    "many",
    "printable",
    "rate",
    "reader_may_leave",
    "span",
    "stdout",
    "terminal",
    "until_when",
    "width",
    "write_csv",
    "write_json",
    "write_json_list",
]

# Wide enough for any line: who pipes the output wants it whole.
_PIPED: Final = 2000
_NARROWEST: Final = 40
_STEPS: Final = ((120.0, 1.0, "s"), (7200.0, 60.0, "min"), (172_800.0, 3600.0, "h"))


class BadAddress(click.ClickException):
    """A word of the command line that is no address: said in one line, without the usage."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Say it."""
        click.echo(f"apiban: {self.message}", file=file, err=True)


class _Host(Kind[Network]):
    """The address of one host."""

    name = "address"

    def convert(self, value: Any, param: Any, ctx: Any) -> Network:  # noqa: ARG002 - click's
        """Give it as a network of one address."""
        if isinstance(value, Network):
            return value
        try:
            return parse_address(value)
        except AddressError as error:
            hint = "; for a network see apiban list --within" if "/" in value else ""
            raise BadAddress(f"{error}{hint}") from None


HOST: Final = _Host()


# Words -----------------------------------------------------------------------------------------


def span(seconds: float) -> str:
    """Show a length of time in one unit: ``12 s``, ``3 min``, ``5 h``, ``6 d``."""
    seconds = max(seconds, 0.0)
    for below, unit, name in _STEPS:
        if seconds < below:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:,.0f} d"


def ago(at: float | None, now: float) -> str:
    """Show a time beside now: ``3 h ago``, ``in 12 s``, ``now``; None is ``never``."""
    if at is None:
        return "never"
    away = at - now
    if abs(away) < 1:
        return "now"
    return f"in {span(away)}" if away > 0 else f"{span(-away)} ago"


def until_when(expires: float | None, now: float) -> str:
    """Show an end: ``2026-11-22 10:00:00 UTC (in 3 h)``; None is ``for good``."""
    return "for good" if expires is None else f"{when(expires)} UTC ({ago(expires, now)})"


def many(number: float, one: str, more: str = "") -> str:
    """Show a number with its noun: ``1 entry``, ``12,000 entries``."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def rate(number: float) -> str:
    """Show how many a second: ``1,234``, ``0.5``."""
    return f"{number:,.0f}" if number >= 10 or number == 0 else f"{number:.1f}"


def printable(text: str) -> str:
    """Escape what a terminal would take for a command, or would not show."""
    return "".join(
        mark if mark.isprintable() else mark.encode("unicode_escape").decode("ascii")
        for mark in text
    )


def cut(text: str, longest: int) -> str:
    """Cut a text to so many characters, and show that it was."""
    return text if len(text) <= longest else text[: max(longest - 3, 0)] + "..."


# Where it goes ---------------------------------------------------------------------------------


def stdout() -> TextIO:
    """Give the standard output; what its encoding has not is escaped."""
    out = sys.stdout
    if hasattr(out, "reconfigure"):
        out.reconfigure(errors="backslashreplace")
    return out


def terminal() -> bool:
    """Tell whether the standard output is a terminal."""
    return sys.stdout.isatty()


def width() -> int:
    """Give how many characters a line may have."""
    if not terminal():
        return _PIPED
    try:
        columns = int(os.environ.get("COLUMNS", "")) or 80
    except ValueError:
        try:
            columns = os.get_terminal_size(sys.stdout.fileno()).columns or 80
        except OSError:
            columns = 80
    return max(columns, _NARROWEST)


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Write while somebody reads: who has seen enough, as ``head`` has, is no failure."""
    try:
        yield
        stdout().flush()
    except BrokenPipeError:
        # What is still in the buffer must not fail at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Exit(0) from None


def console() -> Console:
    """Give a console for the standard output: colours on a terminal alone, never a line broken."""
    from rich.console import Console  # noqa: PLC0415 - a tenth of a second that few commands need

    class Plain(Console):
        def on_broken_pipe(self) -> NoReturn:
            raise BrokenPipeError

    return Plain(file=stdout(), width=width(), highlight=False, markup=False, emoji=False)


class Sheet:
    """Paragraphs for people, most with a label before them; in colours on a terminal."""

    def __init__(self, label: int = 12) -> None:
        self._label = label
        self._lines: list[tuple[str, str, str]] = []  # what stands before it, text, style

    def add(self, text: str, *, label: str = "", style: str = "") -> None:
        """Add a paragraph; with the empty label it goes on below the one before."""
        self._lines.append((label.ljust(self._label), text, style))

    def head(self, text: str, *, style: str = "bold") -> None:
        """Add a paragraph that begins at the margin."""
        self._lines.append(("", text, style))

    def gap(self) -> None:
        """Add an empty line."""
        self._lines.append(("", "", ""))

    def write(self) -> None:
        """Write it all, no line longer than the terminal."""
        from rich.text import Text  # noqa: PLC0415 - as above

        target = console()
        with reader_may_leave():
            for label, text, style in self._lines:
                start = label
                for line in textwrap.wrap(text, target.width - len(label)) or [""]:
                    target.print(Text.assemble((start, "dim"), (line, style)), soft_wrap=True)
                    start = " " * len(label)


# For machines ----------------------------------------------------------------------------------


def write_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write one document."""
    out = stdout()
    json.dump(document, out, indent=2)
    out.write("\n")


def write_json_list(rows: Iterable[Mapping[str, Any]]) -> None:
    """Write an array, of any length, as its rows come: one a line."""
    out = stdout()
    between = "[\n"
    for row in rows:
        out.write(between + json.dumps(row))
        between = ",\n"
    out.write("[]\n" if between == "[\n" else "\n]\n")


def write_csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a line of names, then one a row; None is empty."""
    lines = csv.writer(stdout(), lineterminator="\n")
    lines.writerow(head)
    lines.writerows(_cells(rows))


def _cells(rows: Iterable[Sequence[object]]) -> Iterator[list[object]]:
    return ([printable(one) if isinstance(one, str) else one for one in row] for row in rows)
