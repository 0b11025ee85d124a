"""``bin/tour``: every verb of the command line, typed into a terminal beside a flooded Kamailio.

Good calls go on all the while; each screen is kept, and looked at for what it must show.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from apiban.errors import ApibanError
from apiban.trial.follow import Follower
from apiban.trial.kamailio import Kamailio
from apiban.trial.sipp import SCENARIOS, Load, Server, serve, start
from apiban.trial.stage import (
    CALLER,
    LISTED,
    UPSTREAM,
    free_port,
    own_environ,
    sample_feed,
    wait,
    write_settings,
)
from apiban.trial.terminal import Terminal, TerminalError

__all__ = ["STEPS", "Step", "main"]

_FIRST_LIST: Final = 60.0
_FLOOD: Final = 300  # messages a second from each listed source
_SECONDS: Final = 120  # longer than the tour; what is left of it is stopped


@dataclass(frozen=True, slots=True)
class Step:
    """A command as it is typed, what its screen must hold (regular expressions), its status.

    ``until`` is for a command that does not end: ``key`` is pressed once the screen holds it.
    """

    command: str
    shows: tuple[str, ...]
    status: int = 0
    until: str = ""
    key: str = "q"


STEPS: Final[tuple[Step, ...]] = (
    Step("apiban -t", (r"good",)),
    Step("apiban status", (r"enforce", r"apiban", r"ok")),
    Step("apiban top --count 8", (r"127\.0\.1\.1", r"OPTIONS"), until=r"127\.0\.1\.1 +[1-9]"),
    Step("apiban list --limit 8", (r"127\.0\.1\.1", r"198\.51\.100\.\d")),
    Step("apiban why 127.0.1.1", (r"BANNED", r"by apiban", r"OPTIONS")),
    Step("apiban check 127.0.1.1", (r"banned",), status=3),
    Step("apiban check --remote 203.0.113.9", (r"not",)),
    Step("apiban ban 203.0.113.0/28 --for 1h --reason 'too curious'", (r"in force",)),
    Step("apiban why 203.0.113.7", (r"too curious", r"local")),
    Step("apiban allow add 203.0.113.7 --reason 'their office'", (r"in force",)),
    Step("apiban why 203.0.113.7", (r"their office",)),
    Step("apiban ban 203.0.113.7", (r"allow",), status=1),
    Step("apiban ban 127.0.4.1", (r"upstream",), status=1),
    Step("apiban allow list", (r"their office",)),
    Step("apiban allow remove 203.0.113.7", (r"in force",)),
    Step("apiban unban 203.0.113.0/28 198.51.100.20", (r"198\.51\.100\.20",)),
    Step("seq -f '203.0.113.%g' 1 200 | apiban ban - --for 10m", (r"200", r"in force")),
    Step("apiban list --source local --limit 3 --csv", (r"203\.0\.113\.1,",)),
    Step("apiban mode shadow --for 30m", (r"shadow",)),
    Step("apiban status", (r"shadow",)),
    Step("apiban mode settings", (r"enforce",)),
    Step("apiban sync --full", (r"complete|258",)),
    Step("apiban feed hold show", (r"[Nn]othing is held",)),
    Step("apiban -T | grep -n key", (r"\*\*\*\*",)),
    Step("apiban doctor", (r"hook", r"sync")),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the tour; 0 when every screen shows what it must, and no good call failed."""
    parser = argparse.ArgumentParser(prog="bin/tour")
    parser.add_argument("--screens", type=Path, metavar="FOLDER")
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--rows", type=int, default=40)
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="apiban-") as name:
            return _tour(Path(name), options)
    except ApibanError as error:
        sys.stderr.write(f"bin/tour: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _tour(folder: Path, options: argparse.Namespace) -> int:
    port = free_port("127.0.0.1")
    target = f"127.0.0.1:{port}"
    clean = {name: text for name, text in os.environ.items() if not name.startswith("APIBAN")}
    # The feed is ours, and so the rate limit need not be the public one's.
    set_by_us = {"APIBAN_SETTINGS": str(folder / "apiban.toml"), "APIBAN_FEED_REQUESTS": "1000"}
    environ = own_environ(folder, {**clean, **set_by_us})
    work = folder / "sipp"
    work.mkdir()
    with ExitStack() as stack:
        url, key = stack.enter_context(sample_feed(folder))
        upstream = stack.enter_context(serve(Server("upstream-uas", UPSTREAM), SCENARIOS, work))
        write_settings(
            folder / "apiban.toml", url=url, key=key, upstream=f"sip:{UPSTREAM}:{upstream.port}"
        )
        kamailio = Kamailio(
            folder / "kamailio", listen=(f"udp:{target}", f"tcp:{target}"), environ=environ
        )
        log = stack.enter_context(Follower(kamailio.log_file, quiet=True))
        stack.enter_context(kamailio)
        if not wait(lambda: any(one.startswith("event=pass-end") for one in log.events), 60):
            raise ApibanError("the list did not come")
        for source in LISTED:
            flood = Load("scanner-options-flood", target, source, _FLOOD, _FLOOD * _SECONDS)
            stack.enter_context(start(flood, SCENARIOS, work))
        calls = stack.enter_context(
            start(Load("good-call", target, CALLER, 5, 5 * _SECONDS), SCENARIOS, work)
        )
        size = {"columns": options.columns, "rows": options.rows}
        home = Path(__file__).resolve().parents[3] / "bin"
        paths = f"{home}:{environ.get('PATH', '')}"
        with Terminal(folder, {**environ, "PATH": paths}, **size) as terminal:
            wrong = [text for step in STEPS for text in _play(step, terminal, options.screens)]
        failed = calls.stop().calls_failed
    if failed:
        wrong.append(f"{failed} good calls failed")
    for text in wrong:
        sys.stdout.write(f"WRONG: {text}\n")
    sys.stdout.write(f"{len(STEPS)} commands, {len(wrong)} of them not as they must be\n")
    return 1 if wrong else 0


def _play(step: Step, terminal: Terminal, folder: Path | None) -> list[str]:
    """Type one command, print its screen, and give what is wrong with it."""
    try:
        status, screen = _typed(step, terminal)
    except TerminalError as error:
        return [f"{step.command}: {error}"]
    sys.stdout.write(f"{screen}\n\n")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^a-z0-9]+", "-", step.command.lower()).strip("-")[:60]
        number = STEPS.index(step) + 1
        (folder / f"{number:02d}-{name}.txt").write_text(screen + "\n", encoding="utf-8")
    wrong = [
        f"{step.command}: there is no {one!r}" for one in step.shows if not re.search(one, screen)
    ]
    if status != step.status:
        wrong.append(f"{step.command}: status {status}, not {step.status}")
    if "Traceback" in screen:
        wrong.append(f"{step.command}: a traceback")
    return wrong


def _typed(step: Step, terminal: Terminal) -> tuple[int, str]:
    if not step.until:
        return terminal.run(step.command)
    terminal.type(step.command)
    screen = terminal.until(lambda text: bool(re.search(step.until, text)), step.until)
    terminal.press(step.key)
    return terminal.ended(), screen


if __name__ == "__main__":
    sys.exit(main())
