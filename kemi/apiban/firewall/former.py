"""The backends of former settings: what they made is taken out once another one protects."""

from __future__ import annotations

from typing import Final

from apiban.errors import FirewallError
from apiban.firewall.kernel import Kernel
from apiban.firewall.trouble import Troubles
from apiban.sync.pauses import Pauses

__all__ = ["DRY_RUN", "Formers", "retries"]

DRY_RUN: Final = "dry-run"
_PART: Final = "former backend"


def retries() -> Pauses:
    """Give the pauses of a kernel that fails: 1 s, 2 s, ... 60 s; nobody shares it: no jitter."""
    return Pauses(jitter=lambda: 0.0, first=1.0, ceiling=60.0)


class Formers:
    """Kernels by the names of their backends, for as long as something of theirs may be there."""

    def __init__(self, troubles: Troubles) -> None:
        self._troubles = troubles
        self._left: dict[str, Kernel] = {}
        self._retries = retries()
        self._from = 0.0  # an uptime

    def keep(self, name: str, kernel: Kernel) -> None:
        """Remember one that the settings name no more; a dry run made nothing."""
        if name != DRY_RUN:
            self._left[name] = kernel

    def back(self, name: str) -> Kernel | None:
        """Give the one that the settings name again, if it is still there; it stays."""
        kernel = self._left.pop(name, None)
        if kernel is not None:
            kernel.doubt()
        if not self._left:
            self._troubles.over(_PART)
        return kernel

    def leave(self, uptime: float) -> None:
        """Take them out; what fails is tried again after a pause."""
        if not self._left or uptime < self._from:
            return
        for name, kernel in tuple(self._left.items()):
            try:
                kernel.backend.remove()
            except FirewallError as error:
                if kernel.held is None:  # it never worked: most likely its tool is not there
                    del self._left[name]
                    continue
                self._troubles.tell(_PART, error, effect="its rules and bans stay")
            else:
                del self._left[name]
        if self._left:
            self._from = uptime + self._retries.after_failure()
        else:
            self._retries.success()
            self._from = 0.0
            self._troubles.over(_PART)
