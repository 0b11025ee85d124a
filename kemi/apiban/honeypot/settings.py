"""The honeypot's settings. docs/honeypot.md describes them; a test holds the two together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from apiban.settings.model import ReportSettings
from apiban.settings.readers import (
    Reader,
    Setting,
    boolean,
    number,
    optional_path,
    optional_url,
    path,
    text,
)
from apiban.settings.reading import Reading

__all__ = [
    "SCHEMA",
    "AnswerSettings",
    "HoneypotSettings",
    "PbxSettings",
    "UnprovenSettings",
    "honeypot_settings_path",
    "load_honeypot_settings",
]

_DEFAULT_PATH: Final = Path("/etc/apiban/honeypot.toml")
_NAMED_BY: Final = "APIBAN_HONEYPOT_SETTINGS"
_PREFIX: Final = "APIBAN_HONEYPOT_"
_DAY: Final = 86400.0
_LONGEST_NAME: Final = 64


def _quotable(value: Any) -> str:
    """Take a text that can stand in a header, between quotes."""
    taken = text(value)
    if len(taken) > _LONGEST_NAME or set(taken) & set('"\\'):
        raise ValueError(f"a text of at most {_LONGEST_NAME} characters without quotes")
    return taken


def _setting(name: str, read: Reader, default: Any) -> Setting:
    return Setting(name, read, default, _PREFIX)


SCHEMA: Final[tuple[Setting, ...]] = (
    _setting("report.url", optional_url, ""),
    _setting("report.key", text, ""),
    _setting("report.key_file", optional_path, None),
    _setting("report.interval", number(0.1, 3600), 10.0),
    _setting("report.batch", number(1, 1000, whole=True), 500),
    _setting("report.timeout", number(0.5, 300), 30.0),
    _setting("report.allow_http", boolean, default=False),
    _setting("report.ca_file", optional_path, None),
    _setting("answers.per_source", number(0, 10_000, whole=True), 10),
    _setting("answers.overall", number(0, 100_000, whole=True), 200),
    _setting("answers.window", number(1, 3600, whole=True), 60),
    _setting("nonce.lifetime", number(1, 3600), 60.0),
    _setting("unproven.keep", number(0, 1_000_000, whole=True), 10_000),
    _setting("unproven.writes", number(0, 10_000), 50.0),
    _setting("queue.max_rows", number(1, 100_000_000, whole=True), 1_000_000),
    _setting("pbx.realm", _quotable, "asterisk"),
    _setting("pbx.server", _quotable, "Asterisk PBX 16.28.0"),
    _setting("log.interval", number(1, _DAY), 60.0),
    _setting("paths.state", path, Path("/var/lib/apiban-honeypot")),
    _setting("paths.runtime", path, Path("/run/apiban-honeypot")),
)


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """How many answers unproven sources get: each in a window of seconds, and all in a second."""

    per_source: int
    overall: int
    window: int


@dataclass(frozen=True, slots=True)
class UnprovenSettings:
    """How many unproven sources are kept, and how often a worker writes one, a second."""

    keep: int
    writes: float


@dataclass(frozen=True, slots=True)
class PbxSettings:
    """What the PBX calls itself."""

    realm: str
    server: str


@dataclass(frozen=True, slots=True)
class HoneypotSettings:
    """Everything that a honeypot's operator can set."""

    report: ReportSettings
    answers: AnswerSettings
    unproven: UnprovenSettings
    pbx: PbxSettings
    nonce_lifetime: float
    max_rows: int
    log_interval: float
    state: Path
    runtime: Path


def honeypot_settings_path(environ: Mapping[str, str]) -> Path:
    """Give the file: ``APIBAN_HONEYPOT_SETTINGS``, or /etc/apiban/honeypot.toml."""
    return Path(environ.get(_NAMED_BY) or _DEFAULT_PATH)


def load_honeypot_settings(path: Path, environ: Mapping[str, str]) -> HoneypotSettings:
    """Read the file, then the environment over it; a missing file that nothing names: defaults.

    Raises:
        SettingsError: with one problem for each mistake, none of which holds the key.

    """
    reading = Reading(
        SCHEMA,
        path=path,
        environ=environ,
        named_by=_NAMED_BY,
        variables=(_PREFIX,),
        known=frozenset({_NAMED_BY}),
        secrets=frozenset({"report.key"}),
        docs="docs/honeypot.md",
    )
    reading.values["report.key"] = reading.secret("report.key")
    reading.check_transport("report")
    reading.check_ca_file("report")
    if reading.values["report.url"] and not reading.values["report.key"]:
        reading.problem("report.url: is set, and report.key is not: the feed would take no report")
    reading.finish()
    return HoneypotSettings(
        report=ReportSettings(**reading.section("report")),
        answers=AnswerSettings(**reading.section("answers")),
        unproven=UnprovenSettings(**reading.section("unproven")),
        pbx=PbxSettings(**reading.section("pbx")),
        nonce_lifetime=reading.values["nonce.lifetime"],
        max_rows=reading.values["queue.max_rows"],
        log_interval=reading.values["log.interval"],
        state=reading.values["paths.state"],
        runtime=reading.values["paths.runtime"],
    )
