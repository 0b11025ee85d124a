"""Kamailio started as root that changes to a user of its own, as Debian's unit does."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cachetools
import pytest
from apiban.trial.kamailio import CONFIGURATION, SCRIPT

from tests.support.node import NodeUnderTest, wait_for

pytestmark = pytest.mark.kamailio

USER = "kamailio"
LIBRARIES = (
    *("cachetools", "certifi", "charset_normalizer", "idna", "ifaddr", "requests", "urllib3"),
)


@pytest.fixture
def shared() -> Iterator[Path]:
    """Give a folder that the user can read, with the code and its libraries."""
    folder = Path(tempfile.mkdtemp(prefix="apiban-user-"))
    folder.chmod(0o755)
    shutil.copytree(SCRIPT.parent / "apiban", folder / "kemi" / "apiban")
    shutil.copy(SCRIPT, folder / "kemi" / SCRIPT.name)
    for configuration in CONFIGURATION.parent.glob("*.cfg"):
        shutil.copy(configuration, folder)
    installed = Path(cachetools.__file__).parents[1]
    there = folder / ".venv" / installed.relative_to(installed.parents[2])
    for name in LIBRARIES:
        shutil.copytree(installed / name, there / name)
    yield folder
    shutil.rmtree(folder)


def test_another_user(make_node: Callable[..., NodeUnderTest], shared: Path) -> None:
    """Workers and sync run as the user, on folders of its own; what root makes is given to it."""
    user = pwd.getpwnam(USER)
    state, runtime = shared / "state", shared / "runtime"
    state.mkdir()
    os.chown(state, user.pw_uid, user.pw_gid)
    node = make_node(
        ("127.0.1.5",),
        script=shared / "kemi" / SCRIPT.name,
        configuration=shared / "kamailio.cfg",
        options=("-x", "tlsf", "-u", USER, "-g", USER),
    )
    node.settings_file = shared / "apiban.toml"
    node.kamailio._environ["APIBAN_SETTINGS"] = str(node.settings_file)
    node.write_settings(paths__state=str(state), paths__runtime=str(runtime))
    os.chown(node.settings_file, 0, user.pw_gid)
    node.folder = shared  # where the counters are
    node.start()
    assert node.is_dropped("127.0.1.5")
    assert node.passes("127.0.2.1")
    owners = {path.stat().st_uid for path in (*state.iterdir(), *runtime.iterdir(), runtime)}
    assert owners == {user.pw_uid}
    assert node.maps_from_memory()
    node.restart()
    assert node.is_dropped("127.0.1.5")
    node.api.feed.add("127.0.1.9")
    wait_for(lambda: node.is_dropped("127.0.1.9"), "a page after the restart")
