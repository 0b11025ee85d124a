#!/usr/bin/env python3
"""Record the KEMI functions of the installed Kamailio, and write the typed stubs of them.

Without an option the running Kamailio's list is written to ``lists/<major.minor>.json`` beside
the stubs of that version. Needs Python 3.11, Kamailio with app_python3, kamcmd, and openssl for
the functions of tls.
"""

import argparse
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "src"
PACKAGE = SOURCES / "kamailio_kemi_stubs"
sys.path.insert(0, str(SOURCES))

from kamailio_kemi_stubs import lists, live, render  # noqa: E402 - found by the line above


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return its exit status (0; 1 for a failure or a difference)."""
    options = _parser().parse_args(arguments)
    if options.stubs_only:
        for version in lists.versions():
            write_stubs(version)
        return 0
    try:
        record = live.read(
            kamailio=options.kamailio,
            kamcmd=options.kamcmd,
            modules_dirs=options.modules_dir,
            seconds=options.seconds,
        )
    except live.LiveError as error:
        sys.stderr.write(f"generate.py: {error}\n")
        return 1
    for name, why in record.skipped.items():
        sys.stderr.write(f"skipped {name}: {why}\n")
    if options.print:
        sys.stdout.write(lists.dump(record))
        return 0
    if options.check:
        return check(record)
    path = PACKAGE / "lists" / f"{record.version}.json"
    path.write_text(lists.dump(record), encoding="utf-8")
    write_stubs(record.version)
    sys.stderr.write(f"Kamailio {record.kamailio}: {len(record.functions)} functions\n")
    return 0


def check(record: lists.KemiList) -> int:
    """Compare a live list with the recorded one; say what differs, and return the status."""
    try:
        difference = lists.compare(lists.load(record.version), record.functions)
    except LookupError as error:
        sys.stderr.write(f"generate.py: {error}\n")
        return 1
    for line in difference.describe():
        sys.stdout.write(f"{line}\n")
    return 0 if difference.compatible else 1


def write_stubs(version: str) -> None:
    """Write the stub files of a recorded version; of the oldest one, those of KSR too."""
    for path, text in stub_texts(version).items():
        path.write_text(text, encoding="utf-8")


def stub_texts(version: str) -> dict[Path, str]:
    """Return what the stub files of a recorded version must hold, by path."""
    functions = lists.load(version)
    name = render.versions_module(version)
    texts = {
        PACKAGE / f"{name}.pyi": render.stub_module(version, functions),
        PACKAGE / f"{name}.py": render.runtime_twin(version),
    }
    if version == lists.versions()[0]:
        texts[SOURCES / "KSR-stubs" / "__init__.pyi"] = render.ksr_module(version, functions)
    return texts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--print", action="store_true", help="print the live list as JSON; write nothing"
    )
    what.add_argument(
        "--check",
        action="store_true",
        help="compare the live list with the recorded one; write nothing, exit 1 if they differ",
    )
    what.add_argument(
        "--stubs-only",
        action="store_true",
        help="write the stubs of every recorded list anew; no Kamailio needed",
    )
    parser.add_argument(
        "--modules-dir",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="look for modules there too (may be given more than once)",
    )
    parser.add_argument("--kamailio", default="kamailio", help="program (default: %(default)s)")
    parser.add_argument("--kamcmd", default="kamcmd", help="program (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="time it may take (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
