"""One reading of settings: a TOML file, then the environment over it, gathering every mistake.

What the settings are is told by a schema: the node's, the feed's and the honeypot's are read alike.
"""

from __future__ import annotations

import os
import re
import ssl
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from apiban.address import is_loopback
from apiban.errors import SettingsError
from apiban.log import clean
from apiban.settings.readers import Setting
from apiban.settings.secret import Secret, readable_by_others

__all__ = ["Origin", "Reading"]

_ADVICE: Final = "use chmod o-r on it"
_LARGEST_FILE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Origin:
    """Who gave a value. ``name`` is that of the file or the variable, empty for a default."""

    kind: Literal["default", "file", "environment", "key file", "command line"]
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


class Reading:
    """Values by name, their origins, and the problems met so far; no problem holds a secret.

    ``secrets`` are the settings whose value is never shown, and which make a file that others
    can read a problem. ``variables`` are prefixes of environment variables among which every
    unknown name is a problem (``known`` ones are not); ``docs`` is what such an error points to.
    """

    def __init__(  # noqa: PLR0913 - each is one thing that differs between the readers
        self,
        schema: Sequence[Setting],
        *,
        path: Path,
        environ: Mapping[str, str],
        named_by: str,
        variables: tuple[str, ...],
        known: frozenset[str],
        secrets: frozenset[str],
        docs: str,
        must_exist: bool = False,
    ) -> None:
        self.values: dict[str, Any] = {setting.name: setting.default for setting in schema}
        self.origins: dict[str, Origin] = {setting.name: Origin("default") for setting in schema}
        self.problems: list[str] = []
        self._schema = {setting.name: setting for setting in schema}
        self._path = path
        self._environ = environ
        self._named_by = named_by
        self._secrets = secrets
        self._docs = docs
        document, self._others_can_read = self._document(must_exist=must_exist)
        self._take_document(document)
        for name in sorted(secrets):
            if self.values[name]:
                self.keep_from_others(name)
        self._take_environment(variables, known)

    def problem(self, text: str) -> None:
        """Note a mistake, on one line."""
        self.problems.append(" ".join(text.split()))

    def section(self, name: str) -> dict[str, Any]:
        """Give the values of one section by their bare names."""
        start = name + "."
        return {
            key.removeprefix(start): value
            for key, value in self.values.items()
            if key.startswith(start)
        }

    def finish(self) -> None:
        """End the reading.

        Raises:
            SettingsError: with the problems, if there was any.

        """
        if self.problems:
            raise SettingsError(tuple(self.problems))

    def keep_from_others(self, name: str) -> None:
        """Refuse a file that others can read: it holds a secret in this setting."""
        if self._others_can_read:
            self.problem(f"{name}: others can read {self._path}, which holds it; {_ADVICE}")

    # Values that need more than a reader ---------------------------------------------------------

    def secret(self, name: str, variables: tuple[str, ...] = ()) -> Secret:
        """Give a secret: from the environment, else from ``NAME_file``, else from the settings."""
        for variable in (*variables, self._schema[name].variable):
            text = self._environ.get(variable, "")
            if text:
                self.origins[name] = Origin("environment", variable)
                return self._checked_secret(text, variable)
        file: Path | None = self.values[f"{name}_file"]
        if file is None:
            return self._checked_secret(self.values[name], name)
        if self.values[name]:
            self.problem(f"{name} and {name}_file: set one of the two, not both")
        self.origins[name] = Origin("key file", str(file))
        text = self._secret_in(file, name)
        return self._checked_secret(text, f"{name}_file")

    def _secret_in(self, file: Path, name: str) -> str:
        try:
            with file.open("rb") as opened:
                if readable_by_others(os.fstat(opened.fileno())):
                    self.problem(f"{name}_file: others can read {file}; {_ADVICE}")
                    return ""
                text = opened.read(4096).decode("ascii").strip()
        except OSError as error:
            self.problem(f"{name}_file = {file}: cannot be read: {error.strerror}")
            return ""
        except UnicodeDecodeError:
            return "\n"  # which the check of its characters refuses
        if not text:
            self.problem(f"{name}_file = {file}: is empty; it must hold the key")
        return text

    def _checked_secret(self, text: str, where: str) -> Secret:
        good = text.isascii() and text.isprintable() and " " not in text and len(text) <= 512
        if text and not good:
            self.problem(f"{where}: must be one word of printable ASCII, at most 512 characters")
            return Secret()
        return Secret(text)

    def check_transport(self, section: str) -> None:
        """Refuse a section's URL that would send its key in clear text over a network."""
        url = urlsplit(self.values[f"{section}.url"])
        if url.scheme in {"https", ""} or self.values[f"{section}.allow_http"]:
            return
        if not is_loopback(url.hostname or ""):
            self.problem(
                f"{section}.url = {self._shown(f'{section}.url', url.geturl())}: must be https, "
                f"since the key travels in it ({section}.allow_http = true permits http in a "
                "closed network)"
            )

    def check_ca_file(self, section: str) -> None:
        """Refuse a section's CA bundle that cannot be used."""
        path: Path | None = self.values[f"{section}.ca_file"]
        if path is None:
            return
        try:
            ssl.create_default_context(cafile=path)
        except (OSError, ssl.SSLError):
            self.problem(f"{section}.ca_file = {path}: must be a readable CA bundle in PEM format")

    # The file and the environment ----------------------------------------------------------------

    def _document(self, *, must_exist: bool) -> tuple[dict[str, Any], bool]:
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                raw = file.read(_LARGEST_FILE + 1)
            if len(raw) > _LARGEST_FILE:
                self.problem(f"{self._path}: over {_LARGEST_FILE} bytes is no settings file")
                return {}, False
            if not raw and must_exist:
                self.problem(f"{self._path}: is empty")
            return tomllib.loads(raw.decode("utf-8")), readable_by_others(status)
        except FileNotFoundError:
            if self._environ.get(self._named_by):
                self.problem(f"settings: there is no file {self._path}")
            elif must_exist:
                self.problem(f"{self._path}: is gone")
        except OSError as error:
            self.problem(f"{self._path}: cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            self.problem(f"{self._path}: is not UTF-8 text")
        except (ValueError, RecursionError) as error:
            # The parser's message gives line and column, and of the file one character at most.
            self.problem(f"{self._path}: is not TOML: {clean(error)}")
        return {}, False

    def _take_document(self, document: dict[str, Any]) -> None:
        sections = {name.partition(".")[0] for name in self._schema if "." in name}
        for top, value in document.items():
            if top in sections and isinstance(value, dict):
                for name, inner in value.items():
                    self._take(f"{top}.{name}", inner)
            elif top in sections:
                self.problem(f"{top}: must be a section, [{top}], not a value")
            else:
                self._take(top, value)

    def _take(self, name: str, value: Any) -> None:
        setting = self._schema.get(name)
        if setting is None:
            self.problem(f"{clean(name)}: no such setting; {self._docs} lists them")
        else:
            self._read(setting, name, value, Origin("file", str(self._path)))

    def _take_environment(self, variables: tuple[str, ...], known: frozenset[str]) -> None:
        for setting in self._schema.values():
            text = self._environ.get(setting.variable)
            if text is not None and setting.name not in self._secrets:
                origin = Origin("environment", setting.variable)
                self._read(setting, setting.variable, text, origin)
        known |= {setting.variable for setting in self._schema.values()}
        for name in sorted(self._environ):
            if name.startswith(variables) and name not in known:
                self.problem(f"{clean(name)}: no such setting; {self._docs} lists them")

    def _read(self, setting: Setting, shown: str, value: Any, origin: Origin) -> None:
        self.origins[setting.name] = origin
        try:
            self.values[setting.name] = setting.read(value)
        except (ValueError, RecursionError) as error:
            said = self._shown(setting.name, value)
            self.problem(f"{shown} = {said}: must be {' '.join(str(error).split())}")

    def _shown(self, name: str, value: Any) -> str:
        """Show a value in an error: never a secret, nor one pasted into a URL or a path."""
        if name in self._secrets:
            return "********"
        if name.endswith("url"):
            scheme, mark, rest = str(value).partition("://")
            host = re.split(r"[/?#]", rest, maxsplit=1)[0]
            return clean(f"{scheme}{mark}{host}/..." if mark and "@" not in rest else "(not shown)")
        if isinstance(value, bool):
            return str(value).lower()
        if name.removesuffix("_file") in self._secrets and not str(value).startswith("/"):
            return clean("(not shown)")  # somebody may have put the secret itself there
        return clean(value)
