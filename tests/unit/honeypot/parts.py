"""Requests and settings for the honeypot's unit tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apiban.honeypot.message import Request, read_request
from apiban.honeypot.records import Sighting, Unproven
from apiban.honeypot.settings import HoneypotSettings, load_honeypot_settings

NOW = 1_800_000_000.0


def request(method: str = "OPTIONS", **headers: str) -> bytes:
    """Build a request; ``headers`` replace or add, with ``_`` for the dash, "" takes one away."""
    uri = headers.pop("uri", "sip:900123@192.0.2.9")
    fields = {
        "Via": "SIP/2.0/UDP 192.0.2.1:5062;branch=z9hG4bK-x1",
        "From": '"Bob" <sip:bob@192.0.2.9>;tag=f1',
        "To": "<sip:alice@192.0.2.9>",
        "Call-ID": "c1",
        "CSeq": f"1 {method}",
        "Max-Forwards": "70",
        # As large as what tools send: a small request gets no answer.
        "Accept": "application/sdp, " * 12,
        "Contact": "<sip:bob@192.0.2.1:5062>",
        "User-Agent": "telephone",
        "Content-Length": "0",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"{method} {uri} SIP/2.0", *(f"{name}: {v}" for name, v in fields.items() if v)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read(method: str = "OPTIONS", **headers: str) -> Request:
    """Read a request that is one."""
    found = read_request(request(method, **headers))
    assert found is not None
    return found


def settings(folder: Path, **changes: Any) -> HoneypotSettings:
    """Give settings with a state folder; names have ``__`` for the dot."""
    environ = {f"APIBAN_HONEYPOT_{name.upper()}": str(v) for name, v in changes.items()}
    environ["APIBAN_HONEYPOT_PATHS_STATE"] = str(folder / "state")
    environ["APIBAN_HONEYPOT_PATHS_RUNTIME"] = str(folder / "runtime")
    return load_honeypot_settings(folder / "none.toml", environ)


def sighting(source: str = "192.0.2.1", **changes: Any) -> Sighting:
    """Give a sighting."""
    fields: dict[str, Any] = {
        "source": source,
        "transport": "udp",
        "method": "REGISTER",
        "tool": "sipvicious",
        "user_agent": "friendly-scanner",
        "dialled": None,
        "users": ("100",),
        "proof": "nonce",
        "at": NOW,
        **changes,
    }
    return Sighting(**fields)


def unproven(source: str = "192.0.2.1", **changes: Any) -> Unproven:
    """Give an unproven source."""
    fields: dict[str, Any] = {
        "source": source,
        "transport": "udp",
        "method": "OPTIONS",
        "tool": None,
        "user_agent": None,
        "first": NOW,
        "last": NOW,
        **changes,
    }
    return Unproven(**fields)
