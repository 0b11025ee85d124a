"""A feed's parts over each of the databases, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from apiban.feed.server.service import Service
from apiban.feed.server.settings import load_server_settings

from tests.support.clock import ManualClock
from tests.support.log import MemoryLog
from tests.support.postgres import postgres

__all__ = ["postgres"]

MakeService = Callable[..., Service]


@pytest.fixture
def clock() -> ManualClock:
    """Give the clock of everything in a test."""
    return ManualClock()


@pytest.fixture
def log() -> MemoryLog:
    """Give what the services say."""
    return MemoryLog()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give an empty database's URL, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:////{(tmp_path / 'feed.db').relative_to('/')}"
    fresh: str = request.getfixturevalue("postgres").fresh()
    return fresh


@pytest.fixture
def make_service(
    database_url: str, tmp_path: Path, clock: ManualClock, log: MemoryLog
) -> Iterator[MakeService]:
    """Make services over one database; settings have ``__`` for the dot."""
    made: list[Service] = []

    def make(**changes: Any) -> Service:
        environ = {"APIBAN_SERVER_DATABASE_URL": database_url}
        environ |= {
            "APIBAN_SERVER_" + name.replace("__", "_").upper(): str(value)
            for name, value in changes.items()
        }
        settings = load_server_settings(tmp_path / "none.toml", environ)
        made.append(Service(settings, now=clock.now, log=log))
        return made[-1]

    yield make
    for service in made:
        with suppress(Exception):
            service.close()


@pytest.fixture
def service(make_service: MakeService) -> Service:
    """Give a service with the default settings."""
    return make_service()
