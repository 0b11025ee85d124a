"""The settings, the key, and who can read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from apiban.doctor.finding import Finding, fail, ok, warn
from apiban.doctor.process import User
from apiban.settings import Mode, Settings
from apiban.store import ModeOverride

__all__ = ["check_key", "check_mode", "check_problems", "check_readable", "check_settings"]


def check_problems(path: Path, problems: Sequence[str]) -> list[Finding]:
    """Give each mistake of settings that could not be loaded; it says itself what is allowed."""
    mend = f"mend it in {path}; apiban -t checks"
    closed = "be root, or a member of the group that may read it"
    return [fail("settings", one, closed if "denied" in one else mend) for one in problems]


def check_settings(path: Path, settings: Settings) -> Iterator[Finding]:
    """Tell what is good, and what is hardly meant."""
    yield ok("settings", f"{path} is good" if path.exists() else f"no {path}: the defaults")
    if settings.feed.accept_private:
        yield warn(
            "settings",
            "feed.accept_private: the feed may ban addresses of private networks",
            "take it out, but in a lab",
        )


def check_mode(settings: Settings, override: ModeOverride | None) -> Finding:
    """Tell whether listed sources are dropped; ``override`` is the operator's mode, if any."""
    mode = settings.mode if override is None else override.mode
    if mode is Mode.ENFORCE:
        return ok("mode", "enforce")
    if override is None:
        mend = 'set mode = "enforce" in the settings'
    else:
        mend = "apiban mode settings" + (
            "" if override.expires is None else ", or wait for its end"
        )
    by = "as the settings say" if override is None else "set at the command line"
    return warn("mode", f"{mode}, {by}: nothing is dropped", mend)


def check_key(settings: Settings) -> Finding:
    """Tell whether there is a key."""
    if settings.feed.key:
        return ok("key", "set")
    return warn(
        "key",
        "none is set: the list is not updated",
        "get one at apiban.org, and put it into feed.key, a feed.key_file or APIBAN_KEY",
    )


def check_readable(files: Sequence[Path], user: User) -> Iterator[Finding]:
    """Tell whether Kamailio's user can read the settings and the file of the key.

    That others cannot is a matter of the settings: they are refused then.
    """
    for path in files:
        if user.may(path.stat(), 4) and all(user.may(one.stat(), 1) for one in path.parents):
            yield ok("key file", f"{path} is readable for Kamailio, and not for others")
        else:
            yield fail(
                "key file",
                f"{path} is not readable for Kamailio's user",
                f"chown root:kamailio {path}; chmod 0640 {path}; folders above it: chmod a+x",
            )
