"""``bin/man``: manual pages out of the commands' own texts, one a verb."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from apiban import __version__
from apiban.cli.main import apiban

__all__ = ["main", "pages"]

_EXIT: Final = (
    ("0", "done"),
    ("1", "could not be done: one line on the standard error says why"),
    ("2", "the command line is wrong"),
    ("3", "apiban check: the address is banned"),
    ("4", "stored, but not in force within 5 s in the Kamailio that runs here"),
    ("70", "a fault of this program"),
    ("130", "interrupted"),
)
_FILES: Final = (
    ("/etc/apiban/apiban.toml", "the settings, unless --settings or APIBAN_SETTINGS names others"),
    ("/var/lib/apiban/store.db", "the store: bans, allow list, the feed's state"),
    ("/run/apiban/counters", "what each worker of the running Kamailio counted"),
    ("/run/apiban/sync.json", "what the sync process says of itself"),
    ("/run/apiban/settings.json", "the last good settings, without keys"),
)
# click's mark of a paragraph whose lines are kept.
_KEPT: Final = "\b\n"


def pages() -> dict[str, str]:
    """Give the pages by the names of their files: ``apiban.1`` and one for each verb."""
    root = click.Context(apiban, info_name="apiban", **apiban.context_settings)
    verbs = _commands(apiban, root)
    found = {"apiban.1": _main_page(root, verbs)}
    for context in verbs:
        found[f"apiban-{context.info_name}.1"] = _verb_page(context)
    return found


def _main_page(context: click.Context, verbs: Sequence[click.Context]) -> str:
    lines = [*_head("apiban", context), ".SH DESCRIPTION", *_paragraphs(context)]
    lines += [".SH COMMANDS"]
    for verb in verbs:
        lines += [".TP", rf"\fBapiban\-{_text(verb.info_name or '')}\fR(1)", _short(verb)]
    lines += [*_options(context), ".SH EXIT STATUS", *_terms(_EXIT), ".SH FILES", *_terms(_FILES)]
    return "\n".join(lines) + "\n"


def _verb_page(context: click.Context) -> str:
    lines = [*_head(context.command_path.replace(" ", "-"), context)]
    lines += [".SH DESCRIPTION", *_paragraphs(context), *_options(context)]
    inner = list(_inner(context))
    if inner:
        lines.append(".SH COMMANDS")
    for one in inner:
        lines += [f".SS {_text(one.command_path)}", _usage(one), ".PP"]
        lines += [*_paragraphs(one), *_terms(_records(one))]
    lines += [".SH EXIT STATUS", "The numbers are those of", r".BR apiban (1).", ".SH SEE ALSO"]
    lines.append(r".BR apiban (1)")
    return "\n".join(lines) + "\n"


def _head(name: str, context: click.Context) -> list[str]:
    return [
        r".\" Made by bin/man from the command line's own texts: do not edit.",
        f'.TH {name.upper()} 1 "" "apiban {__version__}" "APIBAN for Kamailio"',
        ".SH NAME",
        rf"{_text(name)} \- {_short(context)}",
        ".SH SYNOPSIS",
        _usage(context),
    ]


def _commands(group: click.Group, context: click.Context) -> list[click.Context]:
    """Give a group's commands, each in its context."""
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            found.append(click.Context(command, parent=context, info_name=name))
    return found


def _inner(context: click.Context) -> Iterator[click.Context]:
    """Give the commands of a verb and theirs; a group's own line comes before its commands'."""
    if isinstance(context.command, click.Group):
        for one in _commands(context.command, context):
            yield one
            yield from _inner(one)


def _usage(context: click.Context) -> str:
    pieces = " ".join(context.command.collect_usage_pieces(context))
    return rf"\fB{_text(context.command_path)}\fR {_text(pieces)}".rstrip()


def _short(context: click.Context) -> str:
    return _text(context.command.get_short_help_str(limit=200).rstrip("."))


def _paragraphs(context: click.Context) -> Iterator[str]:
    """Give a command's help as it stands, its paragraphs apart."""
    first = True
    # Before 3.13 Python leaves the indentation in a docstring, and so does click.
    for paragraph in inspect.cleandoc(context.command.help or "").split("\n\n"):
        if not first:
            yield ".PP"
        first = False
        if paragraph.startswith(_KEPT):
            yield from (".nf", *(_line(line) for line in paragraph[len(_KEPT) :].splitlines()))
            yield ".fi"
        else:
            yield _line(" ".join(paragraph.split()))


def _options(context: click.Context) -> Iterator[str]:
    records = _records(context)
    if records:
        yield from (".SH OPTIONS", *_terms(records))


def _records(context: click.Context) -> list[tuple[str, str]]:
    parameters = context.command.get_params(context)  # an argument says all in the usage's line
    records = [one.get_help_record(context) for one in parameters if isinstance(one, click.Option)]
    return [record for record in records if record is not None]


def _terms(pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    for term, meaning in pairs:
        yield from (".TP", rf"\fB{_text(term)}\fR", _line(meaning) or r"\&")


def _line(text: str) -> str:
    """Give a line of text: one that begins as a request does is none."""
    shown = _text(text)
    return rf"\&{shown}" if shown.startswith((".", "'")) else shown


def _text(text: str) -> str:
    """Give a text as roff wants it: a hyphen that is typed stays one."""
    return text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("`", r"\(ga")


def main(arguments: Sequence[str]) -> int:
    """Write the pages into a folder, and remove those of verbs that are gone."""
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    made = pages()
    for path in folder.glob("*.1"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="ascii")
    sys.stdout.write(f"{len(made)} pages in {folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
