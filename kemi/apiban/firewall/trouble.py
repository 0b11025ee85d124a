"""What is wrong now: said in one line when it begins, and when it is over."""

from __future__ import annotations

from apiban.log import Log

__all__ = ["Troubles"]


class Troubles:
    """One line for each part of the firewall client, for as long as it lasts."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._said: dict[str, str] = {}
        self._waits: set[str] = set()

    def __contains__(self, part: str) -> bool:
        return part in self._said

    @property
    def first(self) -> str:
        """The line of what went wrong first, and still is; empty when nothing is.

        That connections cannot be cut is none: the sets drop what comes by them all the same.
        """
        return next((text for part, text in self._said.items() if part != "conntrack"), "")

    def tell(self, part: str, reason: object, *, effect: str) -> None:
        """Say what is wrong with a part, unless that was the last thing said of it."""
        text = " ".join(str(reason).split())
        if self._said.get(part) != text:
            self._said[part] = text
            self._waits.discard(part)
            self._log("firewall-trouble", part=part, reason=text, effect=effect)

    def wait(self, part: str, reason: str) -> None:
        """Say once what is not there yet, which is no failure; that it came, others say."""
        if self._said.get(part) != reason:
            self._said[part] = reason
            self._waits.add(part)
            self._log("firewall", state="waiting", part=part, reason=reason)

    @property
    def waits(self) -> bool:
        """Whether something is not there yet."""
        return bool(self._waits)

    def over(self, part: str) -> None:
        """Say that a part is good again, if it was not."""
        said, waited = self._said.pop(part, None), part in self._waits
        self._waits.discard(part)
        if said is not None and not waited:
            self._log("firewall", state="good again", part=part)
