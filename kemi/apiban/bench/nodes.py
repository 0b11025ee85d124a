"""The Kamailio set-ups that are compared, each started with its own folder, port and list."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from apiban.address import parse_network
from apiban.bench.machine import BenchError, pin
from apiban.store import FEED_SOURCE, FeedState, Store
from apiban.trial.kamailio import CONFIGURATION, SCRIPT, Kamailio
from apiban.trial.stage import free_port

__all__ = ["ALLOCATORS", "HOST", "SETUPS", "Node", "Setup", "fill_store"]
__all__ += ["FLOOR", "HTABLE_ALONE", "HTABLE_EARLY", "NATIVE", "OURS", "OURS_ALONE"]
__all__ += ["OURS_NATIVE", "OURS_NO_FRONT", "PYTHON", "RECIPE"]

HOST: Final = "127.0.8.1"
# Kamailio's default has debugging checks (-x qm says it by its name); -x tlsf has none.
ALLOCATORS: Final = ("qm", "tlsf")

_FOLDER: Final = CONFIGURATION.parent / "bench"
_WORKER_CORE: Final = 1
_LISTED_FOR: Final = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Setup:
    """One way to run Kamailio; ``list_in`` is where the listed sources go."""

    name: str
    defines: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    script: Path = SCRIPT
    configuration: Path = _FOLDER / "bench.cfg"
    list_in: str = ""  # "htable", "store", or nowhere
    drops: bool = True
    answers: str = "200"  # the status for an OPTIONS of who is not listed; nothing: no answer


def _python(name: str, check: str, *defines: str, list_in: str = "", drops: bool = True) -> Setup:
    return Setup(
        name,
        ("WITH_PYTHON", *defines),
        {"BENCH_CHECK": check},
        _FOLDER / "scripts.py",
        list_in=list_in,
        drops=drops,
    )


def _alone(name: str, check: str, list_in: str) -> Setup:
    return Setup(name, (check, "WITH_SINK"), list_in=list_in, drops=False, answers="")


OURS: Final = "ours, pre-parse"
OURS_NATIVE: Final = "native calling ours, pre-parse"
RECIPE: Final = "htable recipe"
HTABLE_EARLY: Final = "htable, pre-parse"
FLOOR: Final = "bare drop (floor)"
NATIVE: Final = "native, no check"
PYTHON: Final = "Python KEMI, no check"
# The check alone: what it passes is dropped at once.
HTABLE_ALONE: Final = "htable, pre-parse, then a drop"
OURS_NO_FRONT: Final = "native calling ours, without the front"
OURS_ALONE: Final = "native calling ours, pre-parse, then a drop"
SETUPS: Final = {
    setup.name: setup
    for setup in (
        _python(OURS, "early", "WITH_OURS", list_in="store"),
        _python("ours, KEMI callback", "early", "WITH_OURS", "WITH_CALLBACK", list_in="store"),
        _python(
            "ours, request_route",
            "request",
            "WITH_OURS",
            "APIBAN_NO_EVENT_ROUTE",
            list_in="store",
        ),
        Setup(OURS_NATIVE, ("WITH_NATIVE",), list_in="store"),
        Setup(OURS_NO_FRONT, ("WITH_NATIVE", "WITHOUT_FRONT"), list_in="store"),
        Setup("native calling ours, request_route", ("WITH_NATIVE_REQUEST",), list_in="store"),
        Setup(RECIPE, ("WITH_RECIPE",), list_in="htable"),
        Setup(HTABLE_EARLY, ("WITH_HTABLE_EARLY",), list_in="htable"),
        Setup("Lua KEMI, htable", ("WITH_LUA",), {}, _FOLDER / "htable.lua", list_in="htable"),
        _python("Python KEMI, htable", "htable", list_in="htable"),
        Setup(FLOOR, ("WITH_FLOOR",), answers=""),
        _alone(HTABLE_ALONE, "WITH_HTABLE_EARLY", "htable"),
        _alone(OURS_ALONE, "WITH_NATIVE", "store"),
        Setup(NATIVE, drops=False),
        _python(PYTHON, "none", drops=False),
    )
}


def fill_store(state: Path, listed: Iterable[str], *, now: float) -> None:
    """Write the listed sources into the store of a node that does not run."""
    state.mkdir(parents=True, exist_ok=True)
    with Store(state / "store.db") as store:
        store.record_page(
            FEED_SOURCE,
            [parse_network(one) for one in listed],
            listed=now,
            expires=now + _LISTED_FOR,
            state=FeedState(identity="bench"),
        )


class Node:
    """A running set-up: a context manager. Its worker is on the second core, alone."""

    def __init__(  # noqa: PLR0913 - each is one thing a caller varies
        self,
        setup: Setup,
        folder: Path,
        listed: Sequence[str],
        *,
        allocator: str,
        workers: int = 1,
        settings: str = "",
        options: Sequence[str] = (),
    ) -> None:
        """Take what is run where; ``settings`` are lines of TOML that go before the paths."""
        self.setup, self._folder, self._listed = setup, folder, listed
        self.port = free_port(HOST)
        folder.mkdir(parents=True)
        clean = {name: text for name, text in os.environ.items() if not name.startswith("APIBAN")}
        self._settings = folder / "apiban.toml"
        self._settings.write_text(
            f'{settings}\n[paths]\nstate = "{folder}/state"\nruntime = "{folder}/runtime"\n',
            encoding="utf-8",
        )
        self._settings.chmod(0o600)
        self.environ = {**clean, **setup.environ, "APIBAN_SETTINGS": str(self._settings)}
        self.kamailio = Kamailio(
            folder / "kamailio",
            listen=[f"udp:{HOST}:{self.port}"],
            environ=self.environ,
            configuration=setup.configuration,
            script=setup.script,
            workers=workers,
            defines=setup.defines,
            options=("-x", allocator, *options),
        )

    @property
    def runtime(self) -> Path:
        """Its runtime folder."""
        return self._folder / "runtime"

    @property
    def target(self) -> str:
        """Where it listens, as ``address:port``."""
        return f"{HOST}:{self.port}"

    def __enter__(self) -> Self:
        if self.setup.list_in == "store":
            fill_store(self._folder / "state", self._listed, now=time.time())
        self.kamailio.start()
        try:
            if self.setup.list_in == "htable":
                for source in self._listed:
                    self.kamailio.rpc("htable.seti", "apiban", f"s:{source}", "1")
            pin(self.workers(), _WORKER_CORE)
        except BaseException:
            self.kamailio.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kamailio.stop()

    def workers(self) -> list[int]:
        """Give the process ids of its UDP workers.

        Raises:
            BenchError: it has none.

        """
        lines = [line.strip() for line in self.kamailio.rpc("core.ps").splitlines() if line.strip()]
        found = [
            int(lines[at - 1]) for at, line in enumerate(lines) if line.startswith("udp receiver")
        ]
        if not found:
            raise BenchError(f"{self.setup.name}: no UDP worker in core.ps")
        return found
