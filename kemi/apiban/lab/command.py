"""Runs other programs, and says in one line what went wrong."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from apiban.errors import ApibanError

__all__ = ["LabError", "run", "succeeds"]


class LabError(ApibanError):
    """The lab cannot be made, or something in it did not do what it must."""


def run(
    words: Sequence[str],
    *,
    timeout: float = 60.0,
    environ: Mapping[str, str] | None = None,
    text: str | None = None,
) -> str:
    """Run a command with ``text`` on its standard input; give its standard output.

    Raises:
        LabError: it is missing, failed, or did not end within ``timeout`` seconds.

    """
    try:
        done = subprocess.run(
            words,
            env=environ,
            input=text if text is not None else "",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except OSError as error:
        raise LabError(f"{words[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"{_shown(words)}: did not end within {timeout:g} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise LabError(f"{_shown(words)}: status {done.returncode}: {' | '.join(said[-3:])}")
    return done.stdout


def succeeds(words: Sequence[str], *, timeout: float = 20.0) -> bool:
    """Tell whether a command ends well in time."""
    try:
        run(words, timeout=timeout)
    except LabError:
        return False
    return True


def _shown(words: Sequence[str]) -> str:
    return " ".join(word if len(word) < 40 else f"{word[:37]}..." for word in words[:8])
