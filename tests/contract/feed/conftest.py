"""Feed services as processes, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.feedservice import FeedService, hosts
from tests.support.postgres import Postgres, postgres

__all__ = ["postgres"]

DATABASES = ["sqlite", "postgresql"]
# What the service that is shared between tests lists from the start, in this order.
LISTED = hosts(600)
IPV6 = "2a0e:1bc0::77"
BLOCK = "45.95.4.0/24"

# The keys that every service has, and how they are made.
KEYS = {
    "reader": (),
    "every": ("--ipv6", "--blocks"),
    "client": ("default",),
    "pot": ("--may", "report"),
    "pot2": ("--may", "report"),
}


class Template:
    """Databases with KEYS, which are made once and copied: each key is a start of a program."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sqlite: FeedService | None = None
        self._postgres: tuple[FeedService, str] | None = None

    def sqlite(self, into: Path) -> dict[str, str]:
        """Copy it into a folder; give the keys."""
        if self._sqlite is None:
            self._sqlite = self._made("sqlite", None)
        for file in self._sqlite.folder.glob("feed.db*"):
            shutil.copy(file, into)
        return self._sqlite.keys

    def postgres(self, server: Postgres) -> tuple[str, dict[str, str]]:
        """Copy it within a server; give the copy's URL and the keys."""
        if self._postgres is None:
            url = server.fresh()
            self._postgres = self._made("postgresql", url), url.rpartition("/")[2]
        made, name = self._postgres
        return server.fresh(name), made.keys

    def _made(self, kind: str, url: str | None) -> FeedService:
        service = FeedService(self._folder / kind, url)
        for name, options in KEYS.items():
            service.key(name, *options)
        return service


class Makers:
    """Makes services that end with the test; each gets what it printed looked through for keys."""

    def __init__(self, folder: Path, template: Template, server: Callable[[], Postgres]) -> None:
        self._folder = folder
        self._template = template
        self._server = server
        self._made: list[FeedService] = []

    def __call__(self, database: str = "sqlite", **settings: Any) -> FeedService:
        """Make one that is not started yet, with KEYS in a database of that kind."""
        service = self.empty(database, **settings)
        if database == "sqlite":
            service.keys = dict(self._template.sqlite(service.folder))
        else:
            url, keys = self._template.postgres(self._server())
            service.write_settings(database__url=url)
            service.keys = dict(keys)
        return service

    def empty(self, database: str = "sqlite", **settings: Any) -> FeedService:
        """Make one whose database is not there yet."""
        url = None if database == "sqlite" else self._server().fresh()
        folder = self._folder / f"feed{len(self._made)}"
        self._made.append(FeedService(folder, url, **settings))
        return self._made[-1]

    def end(self) -> None:
        """End all of them, the youngest first."""
        faults = [fault for service in reversed(self._made) if (fault := self._stopped(service))]
        assert faults == []
        for service in self._made:
            output = service.output()
            assert "Traceback" not in output, output
            for key in service.keys.values():
                assert key not in output

    @staticmethod
    def _stopped(service: FeedService) -> AssertionError | None:
        """Stop it; the others must end too when it does not do so well."""
        try:
            service.stop()
        except AssertionError as fault:
            return fault
        return None


Make = Makers


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """Give the databases that all services begin with."""
    return Template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def make(tmp_path: Path, template: Template, request: pytest.FixtureRequest) -> Iterator[Makers]:
    """Give what makes services."""
    makers = Makers(tmp_path, template, lambda: request.getfixturevalue("postgres"))
    yield makers
    makers.end()


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> str:
    """Name either kind of database."""
    kind: str = request.param
    return kind


@contextmanager
def _standing(makers: Makers, database: str) -> Iterator[FeedService]:
    """Start a service for all tests; it ends with the last of them."""
    service = makers(database)
    service.cli("import", "-", "--name", "start", stdin="\n".join([*LISTED, IPV6, BLOCK]))
    yield service.start()
    makers.end()


@pytest.fixture(scope="session")
def on_sqlite(
    tmp_path_factory: pytest.TempPathFactory, template: Template
) -> Iterator[FeedService]:
    """Give the one on SQLite."""
    with _standing(Makers(tmp_path_factory.mktemp("shared"), template, Postgres), "sqlite") as one:
        yield one


@pytest.fixture(scope="session")
def on_postgresql(
    tmp_path_factory: pytest.TempPathFactory, template: Template, postgres: Postgres
) -> Iterator[FeedService]:
    """Give the one on PostgreSQL."""
    makers = Makers(tmp_path_factory.mktemp("shared"), template, lambda: postgres)
    with _standing(makers, "postgresql") as one:
        yield one


@pytest.fixture(params=DATABASES)
def shared(request: pytest.FixtureRequest) -> FeedService:
    """Give a service for tests that leave its list as it is: LISTED, IPV6 and BLOCK."""
    service: FeedService = request.getfixturevalue(f"on_{request.param}")
    return service


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def version(request: pytest.FixtureRequest) -> int:
    """Ask in both versions of the API."""
    number: int = request.param
    return number
