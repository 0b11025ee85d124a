"""The feed's settings: /etc/apiban/feed.toml, and the environment (``APIBAN_SERVER_...``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from apiban.address import is_loopback
from apiban.settings.model import FeedSettings
from apiban.settings.readers import (
    Setting,
    boolean,
    choice,
    number,
    optional_path,
    path,
    text,
    url,
    version,
)
from apiban.settings.reading import Reading
from apiban.settings.schema import SCHEMA as NODE_SCHEMA
from apiban.settings.secret import Secret

__all__ = [
    "DEFAULT_PATH",
    "SCHEMA",
    "CurationSettings",
    "MailSettings",
    "PageSettings",
    "ServeSettings",
    "ServerSettings",
    "load_server_settings",
    "server_settings_path",
]

DEFAULT_PATH: Final = Path("/etc/apiban/feed.toml")
_PREFIX: Final = "APIBAN_SERVER_"
_DAY: Final = 86400.0
_SECRETS: Final = frozenset({"mirror.key", "mail.password"})


def _setting(name: str, read: Any, default: Any) -> Setting:
    return Setting(name, read, default, _PREFIX)


def _database(value: Any) -> str:
    allowed = 'a URL such as "postgresql://USER@HOST/NAME" or "sqlite:////var/lib/apiban/feed.db"'
    address: str = text(value)
    try:
        make_url(address)
    except (ArgumentError, ValueError):
        raise ValueError(f"{allowed}, with %-escapes in the password") from None
    if not address.startswith(("postgresql://", "sqlite:////")):
        raise ValueError(allowed)
    return address


def _mirror_url(value: Any) -> str:
    return "" if value == "" else url(value)


SCHEMA: Final[tuple[Setting, ...]] = (
    _setting("database.url", _database, "sqlite:////var/lib/apiban-feed/feed.db"),
    _setting("serve.host", text, "127.0.0.1"),
    _setting("serve.port", number(1, 65535, whole=True), 8080),
    _setting("serve.certificate", optional_path, None),
    _setting("serve.certificate_key", optional_path, None),
    _setting("serve.allow_http", boolean, default=False),
    _setting("serve.requests", number(1, 1_000_000, whole=True), 5),
    _setting("serve.window", number(1, _DAY), 120.0),
    _setting("curation.active_for", number(1, 365 * _DAY), 7 * _DAY),
    _setting("curation.relist_after", number(1, 30 * _DAY), _DAY),
    _setting("curation.sightings", number(1, 100_000, whole=True), 1),
    _setting("curation.honeypots", number(1, 1000, whole=True), 1),
    _setting("curation.within", number(60, 30 * _DAY), _DAY),
    _setting("curation.oldest", number(60, 30 * _DAY), 7 * _DAY),
    _setting("curation.every", number(0.1, 3600), 60.0),
    _setting("curation.never_file", optional_path, None),
    _setting("curation.accept_private", boolean, default=False),
    _setting("curation.widest_ipv4", number(1, 32, whole=True), 16),
    _setting("curation.widest_ipv6", number(1, 128, whole=True), 32),
    _setting("curation.max_listed", number(1, 100_000_000, whole=True), 2_000_000),
    _setting("mirror.url", _mirror_url, ""),
    _setting("mirror.key", text, ""),
    _setting("mirror.key_file", optional_path, None),
    _setting("mirror.version", version, 1),
    _setting("mirror.set", choice("sip", "http", "all"), "sip"),
    _setting("mirror.interval", number(1, _DAY), 120.0),
    _setting("mirror.reconcile_every", number(1, 30 * _DAY), _DAY),
    _setting("mirror.requests", number(1, 10_000, whole=True), 5),
    _setting("mirror.window", number(1, 3600), 120.0),
    _setting("mirror.allow_http", boolean, default=False),
    _setting("mirror.ca_file", optional_path, None),
    _setting("mirror.state", path, Path("/var/lib/apiban-feed/mirror")),
    _setting("mail.host", text, ""),
    _setting("mail.port", number(1, 65535, whole=True), 587),
    _setting("mail.security", choice("starttls", "tls", "none"), "starttls"),
    _setting("mail.user", text, ""),
    _setting("mail.password", text, ""),
    _setting("mail.password_file", optional_path, None),
    _setting("mail.sender", text, ""),
    _setting("mail.link", _mirror_url, ""),
    _setting("mail.ca_file", optional_path, None),
    _setting("mail.an_hour", number(1, 100_000, whole=True), 30),
    _setting("page.trust_loopback", boolean, default=True),
)


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Where the API listens, and a key's quota where the key has none of its own."""

    host: str
    port: int
    certificate: Path | None
    certificate_key: Path | None
    allow_http: bool
    requests: int
    window: float


@dataclass(frozen=True, slots=True)
class CurationSettings:
    """What makes a source listed, and for how long. Times are in seconds."""

    active_for: float = 7 * _DAY
    relist_after: float = _DAY
    sightings: int = 1
    honeypots: int = 1
    within: float = _DAY
    oldest: float = 7 * _DAY
    every: float = 60.0
    never_file: Path | None = None
    accept_private: bool = False
    widest_ipv4: int = 16
    widest_ipv6: int = 32
    max_listed: int = 2_000_000


@dataclass(frozen=True, slots=True)
class MailSettings:
    """The SMTP server through which keys are asked for; no host, no mail."""

    host: str
    port: int
    security: str
    user: str
    password: Secret
    password_file: Path | None
    sender: str
    link: str
    ca_file: Path | None
    an_hour: int


@dataclass(frozen=True, slots=True)
class PageSettings:
    """Who sees more than the public part of the status page without a login."""

    trust_loopback: bool


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Everything that an operator of the feed can set; ``mirror`` is None when none is wanted."""

    database: Secret
    serve: ServeSettings
    curation: CurationSettings
    mirror: FeedSettings | None
    mirror_state: Path
    mail: MailSettings
    page: PageSettings


def server_settings_path(environ: Mapping[str, str]) -> Path:
    """Give the settings file: ``APIBAN_SERVER_SETTINGS``, or /etc/apiban/feed.toml."""
    return Path(environ.get("APIBAN_SERVER_SETTINGS") or DEFAULT_PATH)


def load_server_settings(file: Path, environ: Mapping[str, str]) -> ServerSettings:
    """Read the file, then the environment over it; a missing file means defaults.

    Raises:
        SettingsError: with one problem for each mistake, none of which holds a secret.

    """
    reading = Reading(
        SCHEMA,
        path=file,
        environ=environ,
        named_by="APIBAN_SERVER_SETTINGS",
        variables=(_PREFIX,),
        known=frozenset({"APIBAN_SERVER_SETTINGS"}),
        secrets=_SECRETS,
        docs="docs/feed.md",
    )
    values = reading.values
    values["mirror.key"] = reading.secret("mirror.key")
    values["mail.password"] = reading.secret("mail.password")
    reading.check_transport("mirror")
    reading.check_ca_file("mirror")
    reading.check_ca_file("mail")
    _check(reading)
    reading.finish()
    mirror = reading.section("mirror")
    state: Path = mirror.pop("state")
    return ServerSettings(
        database=Secret(values["database.url"]),
        serve=ServeSettings(**reading.section("serve")),
        curation=CurationSettings(**reading.section("curation")),
        mirror=_feed(mirror, values["curation.accept_private"]) if values["mirror.url"] else None,
        mirror_state=state,
        mail=MailSettings(**reading.section("mail")),
        page=PageSettings(**reading.section("page")),
    )


def _check(reading: Reading) -> None:
    """Check what settings mean together."""
    values = reading.values
    database = make_url(values["database.url"])
    if database.password or "password" in database.query:
        reading.keep_from_others("database.url")
    pair = values["serve.certificate"], values["serve.certificate_key"]
    if (pair[0] is None) != (pair[1] is None):
        reading.problem("serve.certificate and serve.certificate_key: set both, or none")
    for name in ("serve.certificate", "serve.certificate_key", "curation.never_file"):
        if values[name] is not None and not values[name].is_file():
            reading.problem(f"{name} = {values[name]}: there is no such file")
    if None in pair and not values["serve.allow_http"] and not is_loopback(values["serve.host"]):
        reading.problem(
            f"serve.host = {values['serve.host']}: keys would travel in clear text; set "
            "serve.certificate and serve.certificate_key, or a loopback address, or "
            "serve.allow_http = true in a closed network"
        )
    if values["mirror.url"] and not values["mirror.key"]:
        reading.problem("mirror.key: is not set, and mirror.url needs one")
    if values["mail.host"]:
        for name in ("mail.sender", "mail.link"):
            if not values[name]:
                reading.problem(f"{name}: is not set, and mail.host needs it")


def _feed(mirror: dict[str, Any], accept_private: bool) -> FeedSettings:  # noqa: FBT001
    """Give the settings of a node's sync for the upstream; what is not said is a node's default."""
    start = "feed."
    defaults = {
        setting.name.removeprefix(start): setting.default
        for setting in NODE_SCHEMA
        if setting.name.startswith(start)
    }
    mirror = {**mirror, "accept_private": accept_private}
    return FeedSettings(**{**defaults, **mirror})
