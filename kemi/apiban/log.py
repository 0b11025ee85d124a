"""Log lines: ``apiban: event=NAME key=value ...``, one line each, safe to print.

Every line and its fields are documented in docs/log-lines.md, which a test holds against
``EVENTS``. Values that come from packets or from the feed are escaped and cut.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

__all__ = ["EVENTS", "PREFIX", "Level", "Log", "clean", "line", "where"]

Level = Literal["info", "notice", "warn", "err"]

PREFIX: Final = "apiban: "
LONGEST_VALUE: Final = 160

# Each event: its level in the log.
EVENTS: Final[dict[str, Level]] = {
    "start": "notice",
    "reload": "notice",
    "reload-failed": "err",
    "no-package": "err",
    "no-snapshot": "warn",
    "snapshot-refused": "err",
    "first-drop": "notice",
    "would-drop": "notice",
    "summary": "notice",
    "fault": "err",
    "edge-refused": "notice",
    "detected": "notice",
    "would-drop-good": "notice",
    "sync-start": "notice",
    "sync-ended": "warn",
    "sync-output": "warn",
    "sync-busy": "warn",
    "sync-idle": "err",
    "feed": "notice",
    "feed-trouble": "warn",
    "feed-no-key": "warn",
    "page": "info",
    "entries-refused": "warn",
    "pass-begin": "info",
    "pass-end": "notice",
    "pass-held": "err",
    "stale": "warn",
    "drift": "warn",
    "expired": "info",
    "published": "info",
    "publish-failed": "err",
    "mode": "notice",
    "settings": "notice",
    "settings-refused": "err",
    "store": "notice",
    "store-failed": "err",
    # the feed service
    "feed-start": "notice",
    "feed-stop": "notice",
    "feed-store-failed": "err",
    "request": "info",
    "mail-failed": "err",
    "never-list": "notice",
    "never-list-refused": "err",
    "never-list-applied": "notice",
    # the honeypot
    "honeypot-start": "notice",
    "honeypot-summary": "notice",
    "honeypot": "notice",
    "sighting": "notice",
    "queue-failed": "err",
    "queue-full": "err",
    "report": "notice",
    "report-trouble": "warn",
    "report-denied": "err",
    "report-refused": "warn",
    "report-idle": "warn",
    "report-ended": "warn",
    "report-output": "warn",
    # whom Kamailio trusts, and the operator's table
    "trusted": "notice",
    "trusted-unknown": "info",
    "trusted-refused": "warn",
    "mirror": "notice",
    "mirror-failed": "warn",
    # the firewall client
    "firewall-start": "notice",
    "firewall": "notice",
    "firewall-changed": "info",
    "firewall-healed": "warn",
    "firewall-offload": "info",
    "firewall-trouble": "err",
    "firewall-stop": "notice",
}


class Log(Protocol):
    """Where lines go: Kamailio's log in Kamailio, the pipe to it in the sync process."""

    def __call__(self, event: str, **fields: object) -> None:
        """Write one line of ``EVENTS``; the fields come out in the order given."""
        ...


def clean(value: object, longest: int = LONGEST_VALUE) -> str:
    """Make any value one printable ASCII word or quoted text, at most ``longest`` characters.

    (The quotes are not counted.) A line break, a terminal's escape or a quote in a packet cannot
    forge a line or a field.
    """
    text = _text(value)
    whole = len(text) <= longest
    text = text[:longest].encode("unicode_escape").decode("ascii").replace('"', "\\x22")
    if not whole or len(text) > longest:
        text = text[: max(longest - 3, 0)] + "..."
    return f'"{text}"' if not text or set(text) & set(" =") else text


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, bytes):
        return value.decode("latin-1")
    try:
        return str(value)
    except (ValueError, RecursionError):  # a number, or a nesting, beyond what Python prints
        return f"({type(value).__name__})"


def line(event: str, fields: dict[str, object]) -> str:
    """Give the text of one line, without its line break."""
    words = [f"event={event}", *(f"{name}={clean(value)}" for name, value in fields.items())]
    return PREFIX + " ".join(words)


def where(error: BaseException) -> str:
    """Give the place in the code that an unforeseen error comes from, as ``MODULE:LINE``."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return f"{at.tb_frame.f_globals.get('__name__')}:{at.tb_lineno}" if at is not None else "?"
