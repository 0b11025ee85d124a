"""The script that Kamailio loads for the honeypot cannot fail."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import pytest
from kamailio_kemi_stubs.fake import FakeKsr

SCRIPT = Path(__file__).resolve().parents[3] / "kemi" / "apiban_honeypot.py"
KEPT = "_apiban_honeypot_kept"


class Broken(MetaPathFinder):
    """Makes the node fail to import, as a half-installed package does."""

    def find_spec(self, fullname: str, *_: object) -> None:
        """Fail for the one, and leave the rest to the other finders."""
        if fullname == "apiban.honeypot.node":
            raise ImportError("half an installation")


class Kamailio:
    """Loads the script as Kamailio does, again for each reload."""

    def __init__(self, folder: Path) -> None:
        self.ksr = FakeKsr("5.6")
        self.file = folder / "honeypot.toml"
        self.folder = folder
        self.settings("")

    def settings(self, text: str) -> None:
        """Write the settings."""
        paths = f'paths.state = "{self.folder}/s"\npaths.runtime = "{self.folder}/r"\n'
        self.file.write_text(f"{text}\n{paths}")

    def load(self) -> Any:
        """Run the script's body, mod_init and child_init."""
        spec = importlib.util.spec_from_file_location("apiban_honeypot_under_test", SCRIPT)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        handler = module.mod_init()
        assert handler.child_init(1) == 0
        return handler

    def events(self) -> list[str]:
        """Give the events that were said."""
        said = [call for call in self.ksr.calls if call.name.startswith("xlog.")]
        return [str(call.args[0]).split("event=")[1].split()[0] for call in said]


@pytest.fixture
def kamailio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kamailio]:
    """Give a Kamailio; afterwards the package's modules are again those of the other tests."""
    path, made = list(sys.path), Kamailio(tmp_path)
    names = ("apiban", "apiban_kemi")
    ours = {name: one for name, one in sys.modules.items() if name.split(".")[0] in names}
    monkeypatch.setenv("APIBAN_HONEYPOT_SETTINGS", str(made.file))
    monkeypatch.setitem(sys.modules, "KSR", made.ksr)
    yield made
    sys.path[:] = path
    for name in list(sys.modules):
        if name.split(".")[0] in names:
            del sys.modules[name]
    sys.modules.update(ours)
    sys.modules.pop(KEPT, None)


def test_start_and_reload(kamailio: Kamailio) -> None:
    """The second one takes the shared memory of the first over."""
    first = kamailio.load()._node
    second = kamailio.load()._node
    assert second is not first
    assert second.board.handle == first.board.handle
    assert kamailio.events() == ["honeypot-start", "honeypot-start"]


def test_reload_with_bad_settings_keeps_the_running_code(kamailio: Kamailio) -> None:
    """And says why."""
    first = kamailio.load()._node
    kamailio.settings("what = 1")
    assert kamailio.load()._node is first
    assert kamailio.events()[-1] == "reload-failed"
    kamailio.settings("")
    assert kamailio.load()._node is not first


def test_bad_settings_end_the_start(kamailio: Kamailio) -> None:
    """With the reason on a line."""
    kamailio.settings("what = 1")
    with pytest.raises(SystemExit):
        kamailio.load()
    assert kamailio.events() == ["settings-refused"]


def test_without_a_package_nothing_is_answered(
    kamailio: Kamailio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But every callback is there, drops, and raises nothing."""
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    handler = kamailio.load()
    assert kamailio.events() == ["no-package"]
    assert handler.ksr_received(None) == 1
    assert kamailio.ksr.dropped == 1
    callbacks = (handler.ksr_request_route, handler.apiban_tick, handler.ksr_onsend_route)
    assert [callback(None) for callback in callbacks] == [1, 1, 1]


def test_replies_are_dropped(kamailio: Kamailio) -> None:
    """Whatever else is wrong: the core would relay them."""
    assert kamailio.load().ksr_reply_route(None) == 1
    assert kamailio.ksr.dropped == 1
