"""The few headers of a message that the guard reads by itself, before Kamailio has parsed it.

What is read comes from anybody: every look is bounded, and what is not plain is "not there".
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["call_id", "challenge", "is_within_dialog"]

_LONGEST: Final = 16_384  # characters of a message's head that are looked at
_LONGEST_CALL_ID: Final = 256
_CALL_ID: Final = re.compile(
    rf"^(?:call-id|i)[ \t]*+:[ \t]*+([^\s]{{1,{_LONGEST_CALL_ID}}})[ \t]*+\r?$",
    re.IGNORECASE | re.MULTILINE | re.ASCII,
)
_TO: Final = re.compile(
    r"^(?:to|t)[ \t]*+:([^\r\n]{0,1024})", re.IGNORECASE | re.MULTILINE | re.ASCII
)
_TAG: Final = re.compile(r";[ \t]*+tag[ \t]*+=[ \t]*+[^\s;,>]", re.IGNORECASE | re.ASCII)
_END: Final = re.compile(r"\r?\n\r?\n")
_DIGEST: Final = re.compile(r"[ \t]*+digest[ \t]", re.IGNORECASE)
_NONCE: Final = re.compile(r'(?<!\w)nonce\s*+=\s*+"([^"\\]{1,256})"', re.IGNORECASE | re.ASCII)
_STALE: Final = re.compile(r'(?<!\w)stale\s*+=\s*+"?true\b', re.IGNORECASE | re.ASCII)


def call_id(message: str) -> str:
    """Give the Call-ID, of the long or the compact form; empty when it has none, or two."""
    found = _CALL_ID.findall(_head(message))
    return found[0] if len(found) == 1 else ""


def is_within_dialog(message: str) -> bool:
    """Tell whether it is a reply, or a request whose To has a tag."""
    if message.startswith("SIP/2.0 "):
        return True
    found = _TO.findall(_head(message))
    return len(found) == 1 and _TAG.search(found[0].rpartition(">")[2]) is not None


def challenge(value: str) -> tuple[str, bool]:
    """Give a digest challenge's nonce, and whether it calls the last one stale; "" for no nonce."""
    value = value[:4096]
    if _DIGEST.match(value) is None:
        return "", False
    nonce = _NONCE.search(value)
    return nonce[1] if nonce is not None else "", _STALE.search(value) is not None


def _head(message: str) -> str:
    head = message[:_LONGEST]
    end = _END.search(head)
    return head[: end.start() + 1] if end is not None else head
