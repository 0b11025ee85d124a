import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from apiban.snapshot import write_snapshot
from apiban.snapshot.publish import durable_path
from kamailio_kemi_stubs.fake import FakeKsr

from tests.unit.kemi.parts import LISTED, UNLISTED, packet
from tests.unit.snapshot.parts import only

_SCRIPT = Path(__file__).resolve().parents[3] / "kemi" / "apiban_kemi.py"
_KEPT = "_apiban_kept"


class _Broken(MetaPathFinder):
    """Makes one module of the package fail to import, as a half-installed package does."""

    def __init__(self, name: str, error: BaseException) -> None:
        self._name = name
        self._error = error

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == self._name:
            raise self._error
        return None


class _Kamailio:
    """Loads the script as Kamailio does, again for each reload."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ksr = FakeKsr("5.6")
        self.state = folder / "state"
        self.runtime = folder / "runtime"
        self.file = folder / "apiban.toml"
        self.state.mkdir()
        self.runtime.mkdir()
        self.settings()
        monkeypatch.setenv("APIBAN_SETTINGS", str(self.file))
        monkeypatch.setitem(sys.modules, "KSR", self.ksr)
        self._monkeypatch = monkeypatch

    def settings(self, text: str = "") -> None:
        self.file.write_text(
            f'{text}\npaths.state = "{self.state}"\npaths.runtime = "{self.runtime}"\n',
            encoding="utf-8",
        )

    def load(self, rank: int = 1) -> Any:
        """Run the script's body, mod_init and child_init; give the object with the callbacks."""
        spec = importlib.util.spec_from_file_location("apiban_kemi_under_test", _SCRIPT)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        handler = module.mod_init()
        assert handler.child_init(rank) == 0
        return handler

    def breaks(self, name: str = "apiban.kemi.node", error: BaseException | None = None) -> None:
        """Break the package on the disk."""
        finder = _Broken(name, error or ImportError("half an installation"))
        self._monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])

    def mended(self) -> None:
        found = [one for one in sys.meta_path if not isinstance(one, _Broken)]
        self._monkeypatch.setattr(sys, "meta_path", found)

    def drops(self, handler: Any, source: str) -> bool:
        self.ksr.variables = packet(source)
        before = self.ksr.dropped
        assert handler.ksr_received(object()) == 1
        return self.ksr.dropped > before

    def events(self) -> list[str]:
        return [text.split("event=")[1].split()[0] for _, text in self.ksr.log]


@pytest.fixture
def kamailio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Kamailio]:
    """Give a Kamailio; afterwards the package's modules are again those of the other tests."""
    path = list(sys.path)
    ours = {
        name: module
        for name, module in sys.modules.items()
        if name == "apiban" or name.startswith("apiban.")
    }
    yield _Kamailio(tmp_path, monkeypatch)
    sys.path[:] = path
    for name in list(sys.modules):
        if name == "apiban" or name.startswith("apiban."):
            del sys.modules[name]
    sys.modules.update(ours)
    sys.modules.pop(_KEPT, None)


def _list(kamailio: _Kamailio, *listed: str) -> None:
    write_snapshot(durable_path(kamailio.state), only(*listed, generation=7))


# The start -------------------------------------------------------------------------------------


def test_good_start_protects(kamailio: _Kamailio) -> None:
    """Either kind of configuration has its callbacks."""
    _list(kamailio, LISTED)
    handler = kamailio.load()
    assert kamailio.drops(handler, LISTED)
    assert not kamailio.drops(handler, UNLISTED)
    kamailio.ksr.variables = packet(LISTED)
    assert handler.apiban_received() == 2
    kamailio.ksr.variables = {"$si": LISTED}
    assert handler.apiban_request() == 2


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("apiban", ImportError("no package")),
        ("apiban.kemi.node", SyntaxError("cut short")),
        ("cachetools", ImportError("no library\nat all")),
        ("apiban.snapshot.format", MemoryError()),
        ("apiban.kemi", SystemExit(3)),
        ("apiban.gate", KeyboardInterrupt()),
    ],
)
def test_broken_package_at_the_start_passes_everything(
    kamailio: _Kamailio, monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException
) -> None:
    """Kamailio starts, calls flow, and one loud line says that nothing is protected."""
    _list(kamailio, LISTED)
    if name == "cachetools":
        monkeypatch.delitem(sys.modules, "cachetools")
    kamailio.breaks(name, error)
    handler = kamailio.load()
    assert not kamailio.drops(handler, LISTED)
    assert handler.apiban_received() == 1
    assert handler.apiban_request() == 1
    assert handler.apiban_tick(None) == 1
    assert kamailio.events() == ["no-package"]
    assert kamailio.ksr.log[0][1].count("\n") == 1


def test_broken_package_at_the_start_answers_the_edges_requests(kamailio: _Kamailio) -> None:
    """An edge that cannot route says so, instead of leaving callers without an answer."""
    kamailio.breaks()
    assert kamailio.load().ksr_request_route(object()) == 1
    assert kamailio.ksr.calls_of("sl.send_reply") == [(503, "Service Unavailable")]


def test_broken_package_at_the_start_stays_out_until_a_restart(kamailio: _Kamailio) -> None:
    """A node made after the fork would share no memory with the others."""
    _list(kamailio, LISTED)
    kamailio.breaks()
    kamailio.load()
    kamailio.mended()
    assert not kamailio.drops(kamailio.load(), LISTED)


def test_bad_settings_stop_the_start_on_one_line(kamailio: _Kamailio) -> None:
    """With every problem on it."""
    kamailio.settings('mode = "x"\nfeed.interval = -1')
    with pytest.raises(SystemExit) as caught:
        kamailio.load()
    assert caught.value.code == 1
    ((level, text),) = kamailio.ksr.log
    assert level == "err"
    assert text.count("\n") == 1
    assert "mode = x" in text
    assert "feed.interval = -1" in text


def test_quotes_of_a_problem_do_not_end_the_field(kamailio: _Kamailio) -> None:
    """The line is key=value text, whatever stands in it."""
    kamailio.settings('feed.url = "ftp://x"')
    with pytest.raises(SystemExit):
        kamailio.load()
    ((_, text),) = kamailio.ksr.log
    assert text.split('reason="')[1].split('" effect=')[0].count('"') == 0


# The reload ------------------------------------------------------------------------------------


def test_reload_runs_new_code_over_the_old_list(kamailio: _Kamailio) -> None:
    """The package's modules are read anew; list and counters go on."""
    _list(kamailio, LISTED)
    first = kamailio.load()
    kamailio.drops(first, LISTED)
    old = sys.modules["apiban.kemi.guard"]
    second = kamailio.load()
    assert sys.modules["apiban.kemi.guard"] is not old
    assert kamailio.drops(second, LISTED)
    assert second._node.board.total().dropped == 2
    assert "reload" in kamailio.events()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("apiban", ImportError("no package")),
        ("apiban.kemi.node", SyntaxError("cut short")),
        ("apiban.address", SystemExit(3)),
    ],
)
def test_broken_reload_keeps_the_last_node(
    kamailio: _Kamailio, name: str, error: BaseException
) -> None:
    """It goes on dropping and counting, with its own modules in place."""
    _list(kamailio, LISTED)
    first = kamailio.load()
    modules = {name for name in sys.modules if name.startswith("apiban.")}
    kamailio.breaks(name, error)
    second = kamailio.load()
    assert second._node is first._node
    assert kamailio.drops(second, LISTED)
    assert kamailio.events().count("reload-failed") == 1
    assert {name for name in sys.modules if name.startswith("apiban.")} == modules
    kamailio.mended()
    third = kamailio.load()
    assert third._node is not first._node
    assert kamailio.drops(third, LISTED)


def test_reload_with_bad_settings_keeps_the_last_node(kamailio: _Kamailio) -> None:
    """A mistake in the settings never ends a Kamailio that runs."""
    _list(kamailio, LISTED)
    first = kamailio.load()
    kamailio.settings('mode = "x"')
    second = kamailio.load()
    assert second._node is first._node
    assert kamailio.drops(second, LISTED)
    assert "mode = x" in next(text for _, text in kamailio.ksr.log if "reload-failed" in text)


# Callbacks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "ksr_reply_route",
        "ksr_onsend_route",
        "ksr_failure_upstream",
        "ksr_onreply_outside",
        "apiban_tick",
        "ksr_whatever_an_operator_named",
        "apiban_unknown",
    ],
)
def test_every_callback_gives_an_int(kamailio: _Kamailio, name: str, *, broken: bool) -> None:
    """None, or a method that is missing, would break Kamailio's next call."""
    if broken:
        kamailio.breaks()
    handler = kamailio.load()
    if name == "apiban_tick" and not broken:
        handler._node.keeper.tick = lambda: None
    assert getattr(handler, name)(object()) == 1


def test_other_attributes_are_missing(kamailio: _Kamailio) -> None:
    """Only callbacks are made up."""
    handler = kamailio.load()
    assert not hasattr(handler, "mod_init")
    assert not hasattr(handler, "__len__")


@pytest.mark.parametrize(
    ("callback", "owner", "method"),
    [
        ("apiban_tick", "", "tick"),
        ("ksr_request_route", "edge", "request_route"),
        ("ksr_failure_upstream", "edge", "failure_route"),
        ("ksr_onreply_outside", "edge", "reply_route"),
    ],
)
def test_fault_in_a_callback_is_counted_and_passes(
    kamailio: _Kamailio, callback: str, owner: str, method: str
) -> None:
    """Nothing is raised into Kamailio."""
    handler = kamailio.load()

    def fail(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    setattr(getattr(handler._node, owner) if owner else handler._node, method, fail)
    assert getattr(handler, callback)(object()) == 1
    assert handler._node.board.total().faults == 1
    assert kamailio.events().count("fault") == 1


def test_fault_in_child_init_ends_no_process(kamailio: _Kamailio) -> None:
    """An exception there would end Kamailio, with status 0."""
    _list(kamailio, LISTED)
    handler = kamailio.load()

    def fail(_rank: int) -> None:
        raise RuntimeError("a fault of ours")

    handler._node.child_init = fail
    assert handler.child_init(2) == 0
    assert kamailio.drops(handler, LISTED)
