"""A SIP request as far as the honeypot cares, read from its bytes.

Scanners send anything. Kamailio's own variables fail on bytes that are not UTF-8, and log a line
for each header that they cannot read; this never fails, and says None for what is no request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from apiban.honeypot.digest import Credentials, read_credentials

__all__ = ["Request", "read_request"]

_COMPACT: Final = {
    "v": "via",
    "f": "from",
    "t": "to",
    "i": "call-id",
    "m": "contact",
    "l": "content-length",
}
# What Kamailio copies from a request into its reply. It adds a tag to the To, and to the first
# Via where the request really came from.
_COPIED: Final = frozenset({"via", "from", "to", "call-id", "cseq", "record-route"})
_TO_TAG: Final = len(";tag=") + 32 + len(".00000000")
_VIA: Final = len(";received=") + len("[]") + len(";rport=65535")
_NEEDED: Final = frozenset({"via", "from", "to", "call-id", "cseq"})
_MOST_HEADERS: Final = 200
_MOST_CREDENTIALS: Final = 4
_BLANK: Final = " \t"
_SECRETS: Final = frozenset({"authorization", "proxy-authorization"})

_FIRST = re.compile(rb"([!-~]{1,64}) ([^ \r\n]{1,8192}) SIP/2\.0[ \t]*\r?\n", re.IGNORECASE)
_NAME = re.compile(r"[a-z](?:[a-z0-9_-]{0,126}[a-z0-9])?")
_METHOD = re.compile(r"[A-Z0-9.!%*_+`'~-]{1,32}")
_URI = re.compile(r"(sips?|tel):([^\s<>]{1,2048})", re.IGNORECASE)
# One that never ends goes to the end: else each of its quotes would be tried in turn.
_QUOTED = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*(?:"|\\?$)', re.DOTALL)
_TAG = re.compile(r";\s*+tag\s*=\s*([^\s;>,]{1,256})", re.IGNORECASE)
_BRANCH = re.compile(r";\s*+branch\s*=\s*([^\s;,]{1,256})", re.IGNORECASE)

# What Kamailio itself reads of a request, in the plain form that all tools use: it logs a few
# lines for each that it cannot read. Sets of characters alone are possessive here: with groups
# Python 3.11 makes mistakes.
_WORD: Final = r"[\w.!%*+`'~-]++"
_STRING: Final = r'"[^"\\\x00-\x1f\x7f]*+(?:\\[ -~][^"\\\x00-\x1f\x7f]*+)*"'
_HOST: Final = r"(?:\w(?:[\w.-]{0,253}\w)?|\[[0-9a-f:.]{2,45}\])"
_PORT: Final = r"(?:\d{1,4}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])"
# Kamailio takes what only begins like these for one of them; of others it wants a value.
_NAMED: Final = r"branch|maddr|ttl|received|alias|rport|i\b"
_ENDS: Final = r"[ \t]*+"
_ADDRESS: Final = r"[a-z]++:[!#-;=?-\[\]-~]++"
_PARTY: Final = re.compile(
    rf"(?:(?:{_STRING}|(?:{_WORD}[ \t]*+)*){_ENDS}<{_ADDRESS}>|[a-z]++:[!#-+./0-:=@-\[\]-~-]++)"
    rf"(?:{_ENDS};{_ENDS}{_WORD}(?:=(?:{_WORD}|{_STRING}))?)*{_ENDS}",
    re.IGNORECASE | re.ASCII,
)
_READ: Final = {
    "via": re.compile(
        rf"SIP/2\.0/(?:UDP|TCP|TLS)[ \t]++{_HOST}(?::{_PORT})?"
        rf"(?:{_ENDS};{_ENDS}(?:rport(?:={_PORT})?|alias|received={_HOST}"
        rf"|(?:branch|maddr|ttl|i)={_WORD}|(?!{_NAMED}){_WORD}={_WORD}))*{_ENDS}",
        re.IGNORECASE | re.ASCII,
    ),
    "from": _PARTY,
    "to": _PARTY,
    "cseq": re.compile(rf"\d{{1,9}}[ \t]++{_WORD}", re.ASCII),
    "content-length": re.compile(r"\d{1,6}", re.ASCII),
    "retry-after": re.compile(r"\d{1,6}", re.ASCII),
}
_ON_ONE_LINE: Final = _READ.keys() - {"from"}
_ONCE: Final = _NEEDED - {"via"} | {"max-forwards", "content-length"}
_TARGET = re.compile(rb"[!-~\x80-\xff]+")


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Texts are printable and cut; none holds a password, a response or a nonce.

    ``method`` is an upper-case token, or ``UNKNOWN``. ``reply_size`` is the most that Kamailio
    copies into a reply, in bytes without the source's address; ``whole`` says whether Kamailio
    can read and answer it.
    ``credentials`` are kept for the moment of the check alone.
    """

    method: str
    size: int
    reply_size: int
    whole: bool
    user_agent: str | None
    dialled: str | None
    users: tuple[str, ...]
    from_user: str
    from_host: str
    from_tag: str
    branch: str
    contact: str | None
    credentials: tuple[Credentials, ...]


def read_request(data: bytes) -> Request | None:
    """Read a request; None for a reply, or for what has no request line."""
    first = _FIRST.match(data)
    if first is None:
        return None
    headers, reply_size, formed = _headers(data[first.end() :])
    found = dict(reversed(headers))  # the first of each counts
    method = first[1].decode("latin-1").upper()
    secrets = [value for name, value in headers if name in _SECRETS][:_MOST_CREDENTIALS]
    credentials = tuple(read for value in secrets if (read := read_credentials(value)))
    from_, to = found.get("from", ""), found.get("to", "")
    from_user, from_host = _uri(from_)
    tried = (from_user, _uri(to)[0], *(clean_user(one.user) for one in credentials))
    return Request(
        method=method if _METHOD.fullmatch(method) else "UNKNOWN",
        size=len(data),
        reply_size=reply_size,
        whole=(
            formed
            and bool(_METHOD.fullmatch(method) and _TARGET.fullmatch(first[2]))
            and found.keys() >= _NEEDED
            and _is_read(headers)
        ),
        user_agent=_printable(found.get("user-agent", "").strip(), 200) or None,
        dialled=_uri(_text(first[2]))[0] or None,
        users=tuple(dict.fromkeys(user for user in tried if user)),
        from_user=from_user,
        from_host=from_host,
        from_tag=_match(_TAG, from_),
        branch=_match(_BRANCH, found.get("via", "")),
        contact=found.get("contact"),
        credentials=credentials,
    )


def _is_read(headers: list[tuple[str, str]]) -> bool:
    """Tell whether Kamailio can read the headers that it reads, each of them."""
    once = [name for name, _ in headers if name in _ONCE]
    return len(once) == len(set(once)) and all(
        _READ[name].fullmatch(value) for name, value in headers if name in _READ
    )


def clean_user(text: str) -> str:
    """Give a user name without what follows a colon (a password may), printable and cut."""
    return _printable(text.partition(":")[0].strip(), 64)


def _headers(data: bytes) -> tuple[list[tuple[str, str]], int, bool]:
    """Give (name, value) of each header, what they add to a reply, and whether each line is one.

    One that Kamailio reads as it parses, and that goes on in the next line, is none either.
    """
    found: list[tuple[str, list[str]]] = []
    size, formed = _TO_TAG + _VIA, True
    lines = data.split(b"\n", _MOST_HEADERS)
    for number, line in enumerate(lines):
        bare = line.removesuffix(b"\r")
        if not bare:
            break
        if number == len(lines) - 1:  # it has no end, or there are too many
            formed = False
            if number == _MOST_HEADERS:
                break
        if bare[:1] in {b" ", b"\t"} and found:  # the header goes on
            found[-1][1].append(_text(bare).strip(_BLANK))
            formed = formed and found[-1][0] not in _ON_ONE_LINE
        else:
            name, colon, value = _text(bare).partition(":")
            name = name.rstrip(_BLANK).lower()
            formed = formed and bool(colon) and bool(_NAME.fullmatch(name))
            found.append((_COMPACT.get(name, name), [value.strip(_BLANK)]))
        if found[-1][0] in _COPIED:
            size += len(line) + 1
    return [(name, " ".join(parts)) for name, parts in found], size, formed


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _printable(text: str, longest: int) -> str:
    return "".join(one if one.isprintable() else "?" for one in text[:longest])


def _uri(value: str) -> tuple[str, str]:
    """Give user and host of a SIP or tel URI, or of a header that holds one.

    A password stands after the first colon of the user's part, and is left out.
    """
    match = _URI.search(_QUOTED.sub("", value))
    if match is None:
        return "", ""
    user, at, host = match[2].partition("@")
    if not at:
        user, host = (host or user, "") if match[1].lower() == "tel" else ("", user)
    return clean_user(re.split("[;?]", user, maxsplit=1)[0]), re.split("[;:?]", host, maxsplit=1)[0]


def _match(pattern: re.Pattern[str], value: str) -> str:
    match = pattern.search(value[:4096])
    return match[1] if match else ""
