"""A terminal that commands are typed into, and whose screen is read: tmux on its own socket."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self

from apiban.errors import ApibanError

__all__ = ["Terminal", "TerminalError"]

# The prompt shows the status of the command before it.
_PROMPT: Final = re.compile(r"^\[(\d+)\] \$ ?$")


class TerminalError(ApibanError):
    """tmux is missing, or a command did not come to its end in time."""


class Terminal:
    """One shell in one window of ``columns`` by ``rows``; it ends with the ``with`` block."""

    def __init__(
        self, folder: Path, environ: Mapping[str, str], *, columns: int = 100, rows: int = 40
    ) -> None:
        self._socket = folder / "tmux"
        self._folder = folder
        self._environ = {**environ, "TERM": "xterm-256color", "PS1": "[$?] $ "}
        self._size = ("-x", str(columns), "-y", str(rows))

    def __enter__(self) -> Self:
        self._tmux(
            *("new-session", "-d", "-s", "tour", *self._size, "-c", str(self._folder)),
            *("env", "-u", "TMUX", "bash", "--noprofile", "--norc", "-i"),
        )
        self.until(_has_prompt, "a shell")
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(TerminalError):
            self._tmux("kill-server")

    def run(self, command: str, seconds: float = 20.0) -> tuple[int, str]:
        """Type a command on a clear screen, and wait for its end; give its status and the screen.

        Raises:
            TerminalError: it did not end in time.

        """
        self.type(command)
        screen = self.until(_has_prompt, f"the end of {command!r}", seconds)
        return self.ended(seconds), screen.rpartition("\n")[0]

    def type(self, command: str) -> None:
        """Type a command on a clear screen, and do not wait for its end."""
        self._tmux("send-keys", "-t", "tour", "-l", "clear")
        self._tmux("send-keys", "-t", "tour", "Enter")
        self.until(lambda screen: bool(_PROMPT.match(screen)), "a clear screen")
        self._tmux("send-keys", "-t", "tour", "-l", command)
        self._tmux("send-keys", "-t", "tour", "Enter")
        self.until(lambda screen: not _PROMPT.match(screen), "an echo")

    def ended(self, seconds: float = 10.0) -> int:
        """Wait until the command ended; give its status.

        Raises:
            TerminalError: it did not end in time.

        """
        screen = self.until(_has_prompt, "a prompt", seconds)
        status = _PROMPT.match(screen.rpartition("\n")[2])
        return int(status[1]) if status else -1

    def press(self, key: str) -> None:
        """Press a key."""
        self._tmux("send-keys", "-t", "tour", key)

    def until(self, condition: Callable[[str], bool], what: str, seconds: float = 20.0) -> str:
        """Wait until the screen fulfils a condition; give the screen.

        Raises:
            TerminalError: it did not, in time.

        """
        give_up = time.monotonic() + seconds
        while True:
            screen = self._tmux("capture-pane", "-p", "-t", "tour").rstrip("\n")
            if condition(screen):
                return screen
            if time.monotonic() > give_up:
                raise TerminalError(f"within {seconds:g} s there was not: {what}\n{screen}")
            time.sleep(0.05)

    def _tmux(self, *words: str) -> str:
        try:
            done = subprocess.run(
                ["tmux", "-f", "/dev/null", "-S", str(self._socket), *words],
                env=self._environ,
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TerminalError(f"tmux: {error}") from None
        if done.returncode:
            raise TerminalError(f"tmux {words[0]}: {done.stderr.strip()}")
        return done.stdout


def _has_prompt(screen: str) -> bool:
    """Tell whether a prompt waits on the last line, and a command was typed before it."""
    return bool(_PROMPT.match(screen.rsplit("\n", 1)[-1]))
