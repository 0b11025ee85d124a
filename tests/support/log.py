"""A log that remembers."""

from __future__ import annotations

from apiban.log import EVENTS, line


class MemoryLog:
    """Keeps the events; an event that the documentation does not know fails the test."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, dict[str, object]]] = []

    def __call__(self, event: str, **fields: object) -> None:
        """Take one line, and render it as the real ones do."""
        assert event in EVENTS
        assert "\n" not in line(event, fields)
        self.entries.append((event, fields))

    def names(self) -> list[str]:
        """Give the events in order."""
        return [event for event, _ in self.entries]

    def fields(self, event: str) -> list[dict[str, object]]:
        """Give the fields of each line of an event."""
        return [fields for name, fields in self.entries if name == event]
