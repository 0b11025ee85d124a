"""Names of known tools, by what they say of themselves and by the shapes that they leave.

Sources: the tools' own published code and defaults (SIPVicious ``svhelper.py``, SIPp's
``[branch]`` keyword, nmap's ``sip`` probe), and the user agents that operators publish in their
block lists.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

from apiban.honeypot.message import Request

__all__ = ["AGENTS", "tool_of"]

# In the User-Agent, anywhere, whatever the case; the first that fits counts.
AGENTS: Final[tuple[tuple[str, str], ...]] = (
    (r"friendly-(?:scanner|request)|sipvicious|sip-?scan(?:ner)?\b", "sipvicious"),
    (r"sundayddr", "sundayddr"),
    (r"sipsak", "sipsak"),
    (r"sipcli", "sipcli"),
    (r"vaxsip", "vaxsip"),
    (r"pplsip", "pplsip"),
    (r"^smap\b", "smap"),
    (r"^custom sip", "custom-sip"),
    (r"siparmyknife", "siparmyknife"),
    (r"\bsivus\b", "sivus"),
    (r"\biwar\b", "iwar"),
    (r"\bgulp\b", "gulp"),
    (r"\bsippts\b", "sippts"),
    (r"mr\.?\s?sip", "mr-sip"),
    (r"metasploit|\bmsf\b", "metasploit"),
    (r"^sipp\b", "sipp"),
    (r"\bnmap\b", "nmap"),
    (r"zgrab|masscan|\bzmap\b", "mass-scanner"),
    (r"eyebeam release 3006o", "eyebeam-alike"),
    (r"^cisco-sipgateway/ios-1[0-2]", "cisco-alike"),
    (r"^asterisk pbx|^fpbx|^freepbx", "asterisk-alike"),
)

_AGENTS: Final = tuple((re.compile(text, re.IGNORECASE), name) for text, name in AGENTS)
_SIPP_BRANCH = re.compile(r"z9hG4bK-\d+-\d+-\d+")
_SIPP_TAG = re.compile(r"\d+SIPpTag\d+")


def tool_of(request: Request) -> str | None:
    """Give the tool's name, of ``[a-z0-9-]``, or None."""
    for pattern, name in _AGENTS:
        if request.user_agent and pattern.search(request.user_agent):
            return name
    # svmap's caller unless told otherwise, and the From tag of all of its tools.
    if request.from_host == "1.1.1.1" or _is_sipvicious_tag(request.from_tag):
        return "sipvicious"
    if request.from_user == "nm" and request.from_host == "nm":
        return "nmap"
    if _SIPP_TAG.fullmatch(request.from_tag) or _SIPP_BRANCH.fullmatch(request.branch):
        return "sipp"
    return None


def _is_sipvicious_tag(tag: str) -> bool:
    """Its tags are hex of some words, a 0x01, and a decimal number."""
    try:
        words, mark, number = binascii.a2b_hex(tag).partition(b"\x01")
    except (binascii.Error, ValueError):
        return False
    return bool(words and mark) and number.isdigit()
