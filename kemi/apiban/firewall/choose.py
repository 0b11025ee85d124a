"""The backend that the settings name, and the rules that it makes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from apiban.firewall.backend import Backend
from apiban.firewall.rules import Rules
from apiban.settings.model import FirewallSettings, Mode

__all__ = ["BACKENDS", "make_backend", "rules_of"]


def _make(module: str, name: str, **words: Any) -> Backend:
    made: Backend = getattr(importlib.import_module(f"apiban.firewall.{module}"), name)(**words)
    return made


# By the name that the settings have for it; only what is used is imported.
BACKENDS: Final[Mapping[str, Callable[..., Backend]]] = {
    "nftables": partial(_make, "nftables", "NftablesBackend"),
    "ipset": partial(_make, "ipset", "IpsetBackend"),
    "dry-run": partial(_make, "dryrun", "DryRunBackend"),
}


def make_backend(
    settings: FirewallSettings, *, say: Callable[[str], None] | None = None
) -> Backend:
    """Make the backend; nothing in the kernel is touched.

    ``say`` gets what a dry run would do, in the place of the standard output.
    """
    if settings.backend == "dry-run" and say is not None:
        return BACKENDS[settings.backend](say=say)
    return BACKENDS[settings.backend]()


def rules_of(settings: FirewallSettings, mode: Mode) -> Rules:
    """Give the rules of the settings; in shadow mode they count and drop nothing."""
    return Rules(
        hooks=settings.hooks,
        ports=settings.ports,
        interfaces=settings.interfaces,
        established=settings.established,
        drops=mode is Mode.ENFORCE,
    )
